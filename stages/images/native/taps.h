/* Which pixels make each of some results of a resizing, and by which weights. */

#include <stdint.h>

enum { TOGETHER = 4 }; /* weights that are read at a time */

struct taps {
    int count, most;  /* results; weights of one, a multiple of TOGETHER, zeros at the end */
    int precision;    /* bits of a weight behind the point */
    int *first, *num; /* pixels of each result */
    int16_t *weights;
};

/* Taps of `count` results from `begin` on, of those to which `old` pixels are resized. 1 without memory, and then too
 * there is something to free. */
int find_taps(struct taps *taps, int old, int resized, int begin, int count, int antialias);
void free_taps(struct taps *taps);
