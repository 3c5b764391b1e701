/* Tables by which the codes of DEFLATE are looked up. */

#include <stdint.h>

enum { LOOK = 12, FAR_LOOK = 9, LENGTH_LOOK = 7, LONGEST_CODE = 15 };
enum { SYMBOLS = 288, FAR_SYMBOLS = 32, LENGTH_SYMBOLS = 19, ENDS = 256, FARS = 30 };
/* Entries of codes that a look does not tell whole: at least two of them share a second table. */
enum { REST = (SYMBOLS / 2) << (LONGEST_CODE - LOOK), FAR_REST = (FAR_SYMBOLS / 2) << (LONGEST_CODE - FAR_LOOK) };

/* An entry: bits that it takes, extra bits that follow, what it is, and its literals, base or second table. */
enum { PAIR = 1 << 15, LITERAL = 1 << 14, END = 1 << 13, SECOND = 1 << 12, WRONG = 1 << 11 };
#define ENTRY(taken, extra, kind, value) ((uint32_t)(taken) | (uint32_t)(extra) << 4 | (uint32_t)(kind) | (uint32_t)(value) << 16)
#define TAKEN(entry) ((int)((entry)&15))
#define EXTRA(entry) ((int)((entry) >> 4 & 15))
#define VALUE(entry) ((entry) >> 16)

/* Make `(1 << LOOK) + REST` entries of literals, by pairs where a look holds two, and lengths. 1 when the lengths of the
 * codes make no whole code. */
int make_codes(uint32_t *table, const unsigned char *lengths, int symbols);

/* Make `(1 << FAR_LOOK) + FAR_REST` entries of distances; there may be a single code of one bit, or none. */
int make_far(uint32_t *table, const unsigned char *lengths, int symbols);

/* Make `1 << LENGTH_LOOK` entries of the lengths of codes, of which none is longer. */
int make_lengths(uint32_t *table, const unsigned char *lengths);
