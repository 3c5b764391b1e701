/* Which bits tell what: made of the tables in a JPEG's headers, once for all images that have the same. */

#include <string.h>

#include "tables.h"

static uint64_t pair_for(const struct table *table, unsigned look) {
    const uint32_t first = table->looks[look];
    const int taken = first & TAKEN;
    const uint32_t second = table->looks[look << taken & ((1 << LOOK) - 1)];
    if (!(first & WHOLE))
        return first;
    if ((first >> STEPS_AT & STEPS) == END_OF_BLOCK || !(second & WHOLE) || taken + (int)(second & TAKEN) > LOOK)
        return alone(first, taken);
    return (uint64_t)((second & ~(uint32_t)0xFF) | (uint32_t)taken) << SECOND_AT | (first + (second & TAKEN));
}

static int is_made(const struct table *table, const JHUFF_TBL *from) {
    return table->made && !memcmp(table->of_bits, from->bits, sizeof from->bits) &&
           !memcmp(table->of_values, from->huffval, sizeof from->huffval);
}

static int build(struct table *table, const JHUFF_TBL *from, int is_dc) {
    unsigned code = 0;
    int place = 0;
    if (!from)
        return 1;
    if (is_made(table, from))
        return 0;
    table->made = 0;
    memset(table->looks, 0, sizeof table->looks);
    for (int length = 1; length <= 16; length++, code <<= 1) {
        table->offset[length] = place - (int)code;
        for (int n = 0; n < from->bits[length]; n++, code++, place++) {
            const int symbol = from->huffval[place & 255];
            if (place > 255 || code >= 1u << length || (is_dc && symbol > 15))
                return 1;
            table->symbols[place] = (unsigned char)symbol;
            if (length <= LOOK)
                for (unsigned look = code << (LOOK - length); look < (code + 1) << (LOOK - length); look++)
                    table->looks[look] = look_for(symbol, length, look, is_dc);
        }
        table->end[length] = (int)code;
    }
    for (unsigned look = 0; !is_dc && look < 1 << LOOK; look++)
        table->pairs[look] = pair_for(table, look);
    memcpy(table->of_bits, from->bits, sizeof from->bits);
    memcpy(table->of_values, from->huffval, sizeof from->huffval);
    table->made = 1;
    return 0;
}

/* Whether a set has all that this image's scan needs. */
static int has_all(const struct tables *tables, const struct jpeg_decompress_struct *info) {
    for (int c = 0; c < info->comps_in_scan; c++) {
        const int dc = info->cur_comp_info[c]->dc_tbl_no, ac = info->cur_comp_info[c]->ac_tbl_no;
        if (!info->dc_huff_tbl_ptrs[dc] || !is_made(&tables->dc[dc], info->dc_huff_tbl_ptrs[dc]) ||
            !info->ac_huff_tbl_ptrs[ac] || !is_made(&tables->ac[ac], info->ac_huff_tbl_ptrs[ac]))
            return 0;
    }
    return 1;
}

struct tables *choose_tables(j_decompress_ptr info, const struct table_sets *sets) {
    struct tables *chosen = NULL;
    for (struct tables *set = sets->first; set < sets->first + sets->count; set++) {
        if (has_all(set, info)) {
            set->images++;
            return set;
        }
        if (!set->images)
            chosen = set;
    }
    for (int c = 0; chosen && c < info->comps_in_scan; c++) {
        const int dc = info->cur_comp_info[c]->dc_tbl_no, ac = info->cur_comp_info[c]->ac_tbl_no;
        if (build(&chosen->dc[dc], info->dc_huff_tbl_ptrs[dc], 1) ||
            build(&chosen->ac[ac], info->ac_huff_tbl_ptrs[ac], 0))
            return NULL;
    }
    if (chosen)
        chosen->images++;
    return chosen;
}

void give_up_tables(struct tables *tables) {
    if (tables)
        tables->images--;
}
