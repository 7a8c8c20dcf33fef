"""The fixed parts of an exported C header; ``@WORDS@`` are replaced by `c_source`."""

from __future__ import annotations

from rankwise.networks.probabilities import SMOOTHING
from rankwise.units import activations as units

HEADER = """\
/* An image classifier of rankwise @VERSION@, as plain C99. Generated: don't edit.
 *
 * @PROVENANCE@
 * @N_NUMBERS@ weights, @PRECISION@; @FLASH@ bytes of tables (flash), @RAM@ bytes of scratch (RAM).
 * The weights are yours; the code may be used freely, without any warranty.
 *
 * Image: @IMAGE@ values of @PIXEL@, row by row, channels together.
 * Link with -lm. To try it: cc -std=c99 -O2 -x c -D@NAME@_MAIN FILE -lm
 */
#ifndef @NAME@_H
#define @NAME@_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(_MSC_VER)
#define @NAME@_RESTRICT __restrict
#else
#define @NAME@_RESTRICT
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_PIXELS @PIXELS@
#define @NAME@_CLASSES @CLASSES@
#define @NAME@_SCRATCH @SCRATCH@ /* floats */

static const char *const @NAME@_labels[@NAME@_CLASSES] = {@LABELS@};

@TABLES@
@HELPERS@
@FUNCTIONS@
/* The name of a class. */
static inline const char *@NAME@_label(int position) {
    return @NAME@_labels[position];
}

/* Probabilities of an image, @NAME@_CLASSES of them; returns the position of the largest logit.
 * Threads may call it at a time, each with its own scratch. */
static inline int @NAME@_predict_with(const @PIXEL@ *image, float *probabilities, float *scratch) {
    int best = 0;
    float total = 0.0f;
    const float *logits;
@STATEMENTS@
    logits = @LOGITS@;
    for (int k = 1; k < @NAME@_CLASSES; ++k) {
        if (logits[k] > logits[best]) best = k;
    }
@NORMALISE@
    for (int k = 0; k < @NAME@_CLASSES; ++k) probabilities[k] /= total;
    return best;
}

/* The same, with a scratch array of its own: one call at a time. */
static inline int @NAME@_predict(const @PIXEL@ *image, float *probabilities) {
    static float scratch[@NAME@_SCRATCH];
    return @NAME@_predict_with(image, probabilities, scratch);
}

#ifdef __cplusplus
}
#endif
@EXAMPLE@
#endif
"""

INTEGER_HEADER = """\
/* An image classifier of rankwise @VERSION@, as plain C99. Generated: don't edit.
 *
 * @PROVENANCE@
 * @N_NUMBERS@ weights, @PRECISION@; @FLASH@ bytes of tables (flash), @RAM@ bytes of scratch (RAM).
 * It computes in whole numbers; only the @CLASSES@ probabilities are floats.
 * The weights are yours; the code may be used freely, without any warranty.
 *
 * Image: @IMAGE@ values of @PIXEL@, row by row, channels together.
 * To try it: cc -std=c99 -O2 -x c -D@NAME@_MAIN FILE
 */
#ifndef @NAME@_H
#define @NAME@_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) || defined(_MSC_VER)
#define @NAME@_RESTRICT __restrict
#else
#define @NAME@_RESTRICT
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_PIXELS @PIXELS@
#define @NAME@_CLASSES @CLASSES@

/* What a call needs beside the stack. */
typedef struct {
@MEMBERS@
} @NAME@_memory;

static const char *const @NAME@_labels[@NAME@_CLASSES] = {@LABELS@};

@TABLES@

@FUNCTIONS@
@HELPERS@
/* The name of a class. */
static inline const char *@NAME@_label(int position) {
    return @NAME@_labels[position];
}

/* Probabilities of an image, @NAME@_CLASSES of them; returns the position of the largest logit.
 * Threads may call it at a time, each with its own memory. */
static inline int @NAME@_predict_with(const @PIXEL@ *image, float *probabilities,
                                      @NAME@_memory *m) {
    int best = 0;
    float total = 0.0f;
    float logits[@NAME@_CLASSES];
@STATEMENTS@
    for (int k = 1; k < @NAME@_CLASSES; ++k) {
        if (logits[k] > logits[best]) best = k;
    }
@NORMALISE@
    for (int k = 0; k < @NAME@_CLASSES; ++k) probabilities[k] /= total;
    return best;
}

/* The same, with memory of its own: one call at a time. */
static inline int @NAME@_predict(const @PIXEL@ *image, float *probabilities) {
    static @NAME@_memory memory;
    return @NAME@_predict_with(image, probabilities, &memory);
}

#ifdef __cplusplus
}
#endif
@EXAMPLE@
#endif
"""

# The order of the logits is kept, so the largest probability is that of the largest logit.
_SHIFTED = """\
    for (int k = 0; k < @NAME@_CLASSES; ++k) total += logits[k];
    {
        const float shift = (1.0f - total) / (float)@NAME@_CLASSES;
        total = 0.0f;
        for (int k = 0; k < @NAME@_CLASSES; ++k) {
            const float v = logits[k] + shift;
            probabilities[k] = %s;
            total += probabilities[k];
        }
    }"""

PROBABILITIES = {
    "sum-to-one": _SHIFTED % f"0.5f * (v + sqrtf(v * v + {SMOOTHING**2:g}f))",
    "sigmoid": _SHIFTED % "0.5f * (1.0f + tanhf(0.5f * v))",
    "softmax": """\
    for (int k = 0; k < @NAME@_CLASSES; ++k) {
        probabilities[k] = expf(logits[k] - logits[best]);
        total += probabilities[k];
    }""",
}

INTEGER_HELPERS = {
    "exp": """\
/* exp(x) for x of at most 0, to a few parts in ten millions. */
static inline float @NAME@_exp(float x) {
    float power = 1.0f, part;
    int n;
    if (x < -80.0f) return 0.0f;
    n = (int)(x * -1.44269504f + 0.5f);
    part = x + (float)n * 0.693147181f;
    part = 1.0f + part * (1.0f + part * (0.5f + part * (0.166666667f
        + part * (0.0416666667f + part * (0.00833333333f + part * 0.00138888889f)))));
    while (n-- > 0) power *= 0.5f;
    return part * power;
}
""",
    "sqrt": """\
/* The square root of a positive number, by Newton's rule. */
static inline float @NAME@_sqrt(float x) {
    float root = x > 1.0f ? x : 1.0f;
    for (int i = 0; i < 40; ++i) root = 0.5f * (root + x / root);
    return root;
}
""",
    "sigmoid": """\
static inline float @NAME@_sigmoid(float x) {
    const float e = @NAME@_exp(x > 0.0f ? -x : x);
    return (x > 0.0f ? 1.0f : e) / (1.0f + e);
}
""",
}
"""What the probabilities of whole numbers need in the place of the mathematics library."""

INTEGER_PROBABILITIES = {
    "sum-to-one": _SHIFTED % "0.5f * (v + @NAME@_sqrt(v * v + 1e-4f))",
    "sigmoid": _SHIFTED % "@NAME@_sigmoid(v)",
    "softmax": PROBABILITIES["softmax"].replace("expf", "@NAME@_exp"),
}

HALF = """\
/* IEEE half precision to float; finite numbers only. */
static inline float @NAME@_half(uint16_t half) {
    const int exponent = (half >> 10) & 31;
    const int fraction = half & 1023;
    const float size = exponent ? ldexpf((float)(fraction + 1024), exponent - 25)
                                : ldexpf((float)fraction, -24);
    return half & 0x8000 ? -size : size;
}
"""

ACTIVATIONS = {
    name: f"static inline float @NAME@_{name}(float x) {{ return {activation.c}; }}\n"
    for name, activation in units.ACTIVATIONS.items()
}

EXAMPLE = """
#ifdef @NAME@_MAIN
#include <stdio.h>

/* Reads images of @IMAGE@ from standard input to its end, one line of output each: label,
 * then the probabilities. Images are @INPUT@
 * bare values of @PIXEL@, one image after another. */

#if @READABLE@
static int @NAME@_read_number(void) {
    int c = getchar(), number = 0;
    while (c == ' ' || c == '\\n' || c == '\\r' || c == '\\t' || c == '#') {
        if (c == '#') {
            while (c != '\\n' && c != EOF) c = getchar();
        }
        c = getchar();
    }
    if (c < '0' || c > '9') return -1;
    for (; c >= '0' && c <= '9' && number < 100000; c = getchar()) number = 10 * number + (c - '0');
    return number;
}

/* 1 if there is a header that fits, 0 at the end, -1 for anything else. */
static int @NAME@_read_header(void) {
    const int c = getchar();
    if (c == EOF) return 0;
    if (c != 'P' || getchar() != '0' + @MAP_KIND@) return -1;
    if (@NAME@_read_number() != @WIDTH@ || @NAME@_read_number() != @HEIGHT@) return -1;
    return @NAME@_read_number() == 255 ? 1 : -1;
}
#else
static int @NAME@_read_header(void) { return -1; }
#endif

int main(int argc, char **argv) {
    static @PIXEL@ image[@NAME@_PIXELS];
    static float probabilities[@NAME@_CLASSES];
    const int raw = argc > 1 && strcmp(argv[1], "raw") == 0;
    for (;;) {
        const int header = raw ? 1 : @NAME@_read_header();
        size_t n;
        int best;
        if (header == 0) return 0;
        if (header < 0) {
            fprintf(stderr, "expected @EXPECTED@ bare values of @PIXEL@; an "
                            "image is @IMAGE@\\n");
            return 1;
        }
        n = fread(image, sizeof image[0], @NAME@_PIXELS, stdin);
        if (raw && n == 0) return 0;
        if (n != @NAME@_PIXELS) {
            fprintf(stderr, "an image ends too early\\n");
            return 1;
        }
        best = @NAME@_predict(image, probabilities);
        /* Tabs and line ends part what is printed, so a label's own become spaces. */
        for (const char *c = @NAME@_label(best); *c; ++c) {
            putchar((unsigned char)*c < ' ' ? ' ' : *c);
        }
        for (int k = 0; k < @NAME@_CLASSES; ++k) printf("\\t%.9g", (double)probabilities[k]);
        printf("\\n");
    }
}
#endif
"""
