/* Boxes of training crops, as `crops.random_resized` and `crops.inception` choose them, in their arithmetic. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { TRIES = 10 };

struct box {
    int64_t top, left, height, width;
};

static struct box centred(int64_t height, int64_t width) {
    int64_t h = height, w = width;
    if ((double)width / (double)height < 3.0 / 4)
        h = (int64_t)rint((double)width / (3.0 / 4));
    else if ((double)width / (double)height > 4.0 / 3)
        w = (int64_t)rint((double)height * (4.0 / 3));
    return (struct box){(height - h) / 2, (width - w) / 2, h, w};
}

static struct box resized(int64_t height, int64_t width, double least, const double *tries, const double *logs) {
    for (int n = 0; n < TRIES; n++, tries += 4) {
        const double target = (double)(height * width) * (least + tries[0] * (1 - least));
        const double ratio = exp(logs[0] + tries[1] * (logs[1] - logs[0]));
        const int64_t w = (int64_t)rint(sqrt(target * ratio)), h = (int64_t)rint(sqrt(target / ratio));
        if (0 < w && w <= width && 0 < h && h <= height)
            return (struct box){(int64_t)(tries[2] * (double)(height - h + 1)),
                                (int64_t)(tries[3] * (double)(width - w + 1)), h, w};
    }
    return centred(height, width);
}

static int64_t times(int64_t height, double ratio) { return (int64_t)rint((double)height * ratio); }

/* Of height 0 where none of the tries fits. */
static struct box inception(int64_t height, int64_t width, double share, const double *tries) {
    const double least = share * (double)height * (double)width, most = (double)(height * width);
    for (int n = 0; n < TRIES; n++, tries += 4) {
        const double ratio = 0.75 + tries[0] * (1.33 - 0.75);
        int64_t h = (int64_t)rint(sqrt(least / ratio)), highest = (int64_t)rint(sqrt(most / ratio));
        if (times(highest, ratio) > width) {
            highest = (int64_t)(((double)width + 0.5 - 1e-7) / ratio);
            highest -= times(highest, ratio) > width;
        }
        highest = highest < height ? highest : height;
        h = h < highest ? h : highest;
        h += (int64_t)(tries[1] * (double)(highest - h + 1));
        if ((double)(h * times(h, ratio)) < least)
            h++;
        if ((double)(h * times(h, ratio)) > most)
            h--;
        const int64_t w = times(h, ratio);
        if (least <= (double)(h * w) && (double)(h * w) <= most && 0 < w && w <= width && 0 < h && h <= height)
            return (struct box){(int64_t)(tries[2] * (double)(height - h)), (int64_t)(tries[3] * (double)(width - w)), h,
                                w};
    }
    return (struct box){0};
}

/* `shapes` are heights and widths; `tries` ten times four draws for each; `logs` those of the ratios, or NULL for
 * `inception`. */
void vitpipe_boxes(const int64_t *shapes, const double *tries, size_t count, double least, const double *logs,
                   struct box *boxes) {
    for (size_t i = 0; i < count; i++, shapes += 2, tries += 4 * TRIES)
        boxes[i] = logs ? resized(shapes[0], shapes[1], least, tries, logs)
                        : inception(shapes[0], shapes[1], least, tries);
}
