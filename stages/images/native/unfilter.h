/* The five filters of PNG's rows (PNG specification, section 9), undone. */

#include <stddef.h>

enum { MOST_PIXEL_BYTES = 8 }; /* zeros before a row and the one above, and bytes behind them that may be read and written */

/* Undo `filter` for the first `bytes` of a row. 1 for a filter that there is not. */
int unfilter(int filter, const unsigned char *raw, const unsigned char *above, unsigned char *to, size_t bytes,
             size_t pixel_bytes);
