/* Steps of RandAugment on the three planes of an image, each in the arithmetic of the program that it is taken from. */

#include <stddef.h>
#include <stdint.h>

enum { PLANES = 3, LEVELS = 256, TAPS = 4 };
enum program { BIG_VISION, PILLOW, TORCHVISION };
enum what { TABLE, AUTOCONTRAST, EQUALIZE, EVEN, COLOUR, CONTRAST, SHARPNESS, GATHER, BILINEAR, BICUBIC, BOX };

/* As `steps.py` lays it out. */
struct step {
    const void *table;  /* of levels, or of places: one more than where each pixel comes from, 0 for `fill` */
    double numbers[6];
    int32_t what, program, fill;
};

struct planes {
    unsigned char *at;
    size_t height, width, size; /* of a plane */
};

/* On x86, code for CPUs with AVX2 and fused multiplication beside that for all; the arithmetic is the same. The function
 * `name##_body` has to be there, always inline. */
#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(PLAIN) /* which a test sets */
#define HAS_INTRINSICS
#define WIDE __attribute__((target("avx2,fma")))
#define has_wide() (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define WIDE
#define has_wide() 0
#endif
#define FOR_EACH_CPU(type, name, parameters, arguments)                                                                \
    WIDE static type name##_wide parameters { return name##_body arguments; }                                          \
    static type name parameters {                                                                                      \
        if (has_wide())                                                                                                \
            return name##_wide arguments;                                                                              \
        return name##_body arguments;                                                                                  \
    }

INLINE unsigned char as_level(float value) {
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* From `one` by `factor` towards `other`, or past it. */
INLINE unsigned char blended(float one, float other, float factor) {
    return as_level(one + factor * (other - one));
}

/* Pillow's filters, between levels side by side. */
INLINE double linear(double one, double other, double part) { return one + (other - one) * part; }

INLINE double cubic(double v1, double v2, double v3, double v4, double part) {
    const double p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return v2 + part * (p2 + part * (p3 + part * p4));
}

INLINE unsigned char cut_off(double value) {
    value = value < 0 ? 0 : value;
    return (unsigned char)(int32_t)(value > 255 ? 255 : value);
}

/* Take steps on contiguous planes, in place. 1 without memory. */
int vitpipe_steps(unsigned char *planes, size_t height, size_t width, const struct step *steps, size_t count);

/* Red, green and blue of each pixel in one number. */
void interleave(const unsigned char *planes, size_t size, uint32_t *pixels);

void look_up(unsigned char *levels, size_t count, const unsigned char *table);
void change_colour(struct planes planes, enum program program, double factor);
void change_contrast(struct planes planes, enum program program, double factor);
/* Needs a copy `from` of the planes. */
void sharpen(struct planes planes, const unsigned char *from, enum program program, double factor);
/* Pixels from given places, with room for a copy of the planes. 1 without memory. */
int gather(struct planes planes, unsigned char *copy, const int32_t *places, int fill);
/* Pixels from where a matrix leads. 1 without memory. */
int move(struct planes planes, const double *matrix, int by_cubic, int fill);
/* Whether a matrix leads along rows alone, or along columns; then the same with room for a copy of the planes. */
int is_shift(const double *matrix);
int shift(struct planes planes, unsigned char *copy, const double *matrix, int by_cubic, int fill);
