/* Loops that PyTorch has no single operation for, over tensors that lie contiguously in memory. REAL is float or double.

   Names: T tasks, M rows (examples times positions), C channels. Nothing is allocated here and nothing is threaded: chunks of tasks
   run side by side. No sum is reordered by the compiler, and not-a-numbers pass through. */

#include <math.h>
#include <string.h>

typedef REAL real;
typedef long long size;

#define BLOCK 16 /* channels whose sums stay in registers */
#define INLINE static inline __attribute__((always_inline))

/* --- Matrix products -------------------------------------------------------------------------------------------------------

   Two inner loops, each for 6 rows of the result (or 1) and as many of its columns as registers hold, wide vectors first and what is
   left over in narrower ones. Rows that are left over are computed together with some that were before, once more. */

#if defined(__AVX512F__)
#define WIDEST 64
#elif defined(__AVX__)
#define WIDEST 32
#else
#define WIDEST 16
#endif

#define ROWS 6
#define TAPS 9 /* of a 3x3 filter */

typedef real vec16 __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));
typedef real vec32 __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));
typedef real vec64 __attribute__((vector_size(64), aligned(sizeof(real)), may_alias));
typedef real vec1;

/* to[i][.] = sum over taps t and d < depth of from[t][i][d] * matrix[which[t]][d][.], a matrix [.., depth, width] */
typedef struct {
    const real *from[TAPS][ROWS];
    int which[TAPS], taps;
    size depth, width;
    real *to[ROWS];
} Rows;

/* to[i][.] = sum over m < count of from[m][i] * with[m][.], with [count, width] */
typedef struct {
    const real *const *from;
    size count, width, first;
    real *to;
} Outer;

#define TILE(name, vec, NV)                                                                            \
    INLINE void rows_##name(const Rows *a, const real *matrix, size f, const int R) {                  \
        const size step = sizeof(vec) / sizeof(real);                                                  \
        vec sum[ROWS][NV];                                                                             \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) sum[i][v] = (vec){0};                                         \
        for (int t = 0; t < a->taps; t++) {                                                            \
            const real *b = matrix + a->which[t] * a->depth * a->width + f;                            \
            const real *row[ROWS];                                                                     \
            for (int i = 0; i < R; i++) row[i] = a->from[t][i];                                        \
            for (size d = 0; d < a->depth; d++, b += a->width)                                         \
                for (int v = 0; v < NV; v++) {                                                         \
                    const vec w = *(const vec *)(b + v * step);                                        \
                    for (int i = 0; i < R; i++) sum[i][v] += row[i][d] * w;                            \
                }                                                                                      \
        }                                                                                              \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) *(vec *)(a->to[i] + f + v * step) = sum[i][v];                \
    }                                                                                                  \
    INLINE void outer_##name(const Outer *a, const real *with, size f, const int R) {                  \
        const size step = sizeof(vec) / sizeof(real);                                                  \
        vec sum[ROWS][NV];                                                                             \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) sum[i][v] = (vec){0};                                         \
        with += f;                                                                                     \
        for (size m = 0; m < a->count; m++, with += a->width) {                                        \
            const real *row = a->from[m] + a->first;                                                   \
            for (int v = 0; v < NV; v++) {                                                             \
                const vec w = *(const vec *)(with + v * step);                                         \
                for (int i = 0; i < R; i++) sum[i][v] += row[i] * w;                                   \
            }                                                                                          \
        }                                                                                              \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) *(vec *)(a->to + i * a->width + f + v * step) = sum[i][v];    \
    }

TILE(1, vec1, 1)
TILE(16, vec16, 1)
#if WIDEST >= 32
TILE(32, vec32, 1)
TILE(32x2, vec32, 2)
#endif
#if WIDEST >= 64
TILE(64, vec64, 1)
TILE(64x2, vec64, 2)
TILE(64x4, vec64, 4)
#endif

#define WIDE(kind, name, bytes)                                \
    for (; f + (bytes) / (size)sizeof(real) <= a->width; f += (bytes) / sizeof(real)) kind##_##name(a, b, f, R);
#if WIDEST >= 64
#define COLUMNS(kind) WIDE(kind, 64x4, 256) WIDE(kind, 64x2, 128) WIDE(kind, 64, 64) WIDE(kind, 32, 32) WIDE(kind, 16, 16)
#elif WIDEST >= 32
#define COLUMNS(kind) WIDE(kind, 32x2, 64) WIDE(kind, 32, 32) WIDE(kind, 16, 16)
#else
#define COLUMNS(kind) WIDE(kind, 16, 16)
#endif

INLINE void rows_columns(const Rows *a, const real *b, const int R) {
    size f = 0;
    COLUMNS(rows)
    for (; f < a->width; f++) rows_1(a, b, f, R);
}

INLINE void outer_columns(const Outer *a, const real *b, const int R) {
    size f = 0;
    COLUMNS(outer)
    for (; f < a->width; f++) outer_1(a, b, f, R);
}

static void rows_product(const Rows *a, const real *matrix, int R) {
    if (R == ROWS) rows_columns(a, matrix, ROWS);
    else rows_columns(a, matrix, 1);
}

/* to [rows, width] = sum over m of from[m][0 .. rows] * with [m, width] */
static void outer_product(const real *const *from, const real *with, real *to, size count, size rows, size width) {
    Outer a = {from, count, width, 0, to};
    const size R = rows < ROWS ? 1 : ROWS;
    for (size i = 0; i < rows; i += R) {
        a.first = i + R > rows ? rows - R : i;
        a.to = to + a.first * width;
        if (R == ROWS) outer_columns(&a, with, ROWS);
        else outer_columns(&a, with, 1);
    }
}

/* matrix [rows, columns] -> [columns, rows] */
static void transpose(const real *restrict matrix, real *restrict to, size rows, size columns) {
    for (size i = 0; i < rows; i += 16)
        for (size j = 0; j < columns; j += 16)
            for (size q = j; q < j + 16 && q < columns; q++)
                for (size p = i; p < i + 16 && p < rows; p++) to[q * rows + p] = matrix[p * columns + q];
}

/* --- Convolution with 3x3 filters, stride 2, padding 1 ----------------------------------------------------------------------

   Per task: N pictures x [N, H, W, C], weights [3, 3, C, K], y [N, (H + 1) / 2, (W + 1) / 2, K]. `shared` weights are the same for
   every task. `zeros` holds max(C, K) of them: what lies outside of a picture. */

void convolve(const real *x, const real *weight, const real *zeros, real *y, size T, size shared, size N, size H, size W, size C, size K) {
    const size P = (H + 1) / 2, Q = (W + 1) / 2, M = N * P * Q, R = M < ROWS ? 1 : ROWS;
    Rows a = {.taps = TAPS, .depth = C, .width = K};
    for (int t = 0; t < TAPS; t++) a.which[t] = t;
    for (size task = 0; task < T; task++, x += N * H * W * C, y += M * K, weight += shared ? 0 : TAPS * C * K)
        for (size m = 0; m < M; m += R) {
            const size first = m + R > M ? M - R : m;
            for (size i = 0; i < R; i++) {
                const size at = first + i, n = at / (P * Q), r = 2 * (at / Q % P) - 1, s = 2 * (at % Q) - 1;
                const real *corner = x + ((n * H + r) * W + s) * C;
                for (int t = 0; t < TAPS; t++) {
                    const size u = r + t / 3, v = s + t % 3;
                    a.from[t][i] = u >= 0 && u < H && v >= 0 && v < W ? corner + (t / 3 * W + t % 3) * C : zeros;
                }
                a.to[i] = y + at * K;
            }
            rows_product(&a, weight, R);
        }
}

/* The gradient by x: a position of x takes part in the outputs whose filter lies over it, 1, 2 or 4 of them by the position's parity.
   scratch: 9 C K. */
void convolve_input_gradient(const real *dy, const real *weight, const real *zeros, real *dx, real *scratch, size T, size shared, size N,
                             size H, size W, size C, size K) {
    const size P = (H + 1) / 2, Q = (W + 1) / 2;
    for (size task = 0; task < T; task++, dx += N * H * W * C, dy += N * P * Q * K, weight += shared ? 0 : TAPS * C * K) {
        if (task == 0 || !shared)
            for (int t = 0; t < TAPS; t++) transpose(weight + t * C * K, scratch + t * C * K, C, K);
        for (size parity = 0; parity < 4; parity++) {
            const size u0 = parity / 2, v0 = parity % 2, U = (H - u0 + 1) / 2, V = (W - v0 + 1) / 2, M = N * U * V, R = M < ROWS ? 1 : ROWS;
            Rows a = {.taps = 0, .depth = K, .width = C};
            for (int t = 0; t < TAPS; t++) /* output i is over input u with tap r where u = 2 i - 1 + r */
                if ((t / 3 + u0) % 2 == 1 && (t % 3 + v0) % 2 == 1) a.which[a.taps++] = t;
            for (size m = 0; m < M; m += R) {
                const size first = m + R > M ? M - R : m;
                for (size i = 0; i < R; i++) {
                    const size at = first + i, n = at / (U * V), u = 2 * (at / V % U) + u0, v = 2 * (at % V) + v0;
                    for (int t = 0; t < a.taps; t++) {
                        const size p = (u + 1 - a.which[t] / 3) / 2, q = (v + 1 - a.which[t] % 3) / 2;
                        a.from[t][i] = p >= 0 && p < P && q >= 0 && q < Q ? dy + ((n * P + p) * Q + q) * K : zeros;
                    }
                    a.to[i] = dx + ((n * H + u) * W + v) * C;
                }
                rows_product(&a, scratch, R);
            }
        }
    }
}

/* The gradient by the weights. pointers: 9 M of them, M = N P Q positions of y; scratch: 9 M C. */
void convolve_weight_gradient(const real *x, const real *dy, const real *zeros, real *dweight, const real **pointers, real *scratch,
                              size T, size N, size H, size W, size C, size K) {
    const size P = (H + 1) / 2, Q = (W + 1) / 2, M = N * P * Q;
    for (size task = 0; task < T; task++, x += N * H * W * C, dy += M * K, dweight += TAPS * C * K) {
        for (size m = 0; m < M; m++) {
            const size n = m / (P * Q), r = 2 * (m / Q % P) - 1, s = 2 * (m % Q) - 1;
            for (int t = 0; t < TAPS; t++) {
                const size u = r + t / 3, v = s + t % 3;
                pointers[t * M + m] = u >= 0 && u < H && v >= 0 && v < W ? x + ((n * H + u) * W + v) * C : zeros;
            }
        }
        if (C >= ROWS) {
            for (int t = 0; t < TAPS; t++) outer_product(pointers + t * M, dy, dweight + t * C * K, M, C, K);
        } else { /* few channels fill no rows, all taps' together do */
            for (int t = 0; t < TAPS; t++)
                for (size m = 0; m < M; m++)
                    for (size c = 0; c < C; c++) scratch[(m * TAPS + t) * C + c] = pointers[t * M + m][c];
            for (size m = 0; m < M; m++) pointers[m] = scratch + m * TAPS * C;
            outer_product(pointers, dy, dweight, M, TAPS * C, K);
        }
    }
}

/* --- Normalization by the statistics of the rows, then ReLU -------------------------------------------------------------

   Per task and channel, with n rows z, mean m, r = 1 / sqrt(variance + epsilon), h = r (z - m):
       y = relu(scale h + shift)
   Upstream dy, masked where y is 0, is g:
       dz = scale r (g - mean(g) - h mean(g h)),  dscale = sum(g h),  dshift = sum(g)
   Upstream (a, b, c) of those three, with P(w) = w - mean(w) - h mean(w h) and q = sum(a P(g)):
       by dy:     mask (scale r P(a) + b h + c)
       by scale:  r q
       by z:      b r P(g) - scale r^2 (mean(g h) P(a) + mean(a h) P(g) + h q / n)
   Derived by hand; the tests hold them against automatic differentiation. */

#define EACH_ROW for (size row = 0; row < M; row++, at += C)
#define CHANNELS for (int k = 0; k < n; k++)

INLINE void forward_block(const real *restrict z, const real *restrict scale, const real *restrict shift, real *restrict y, real *restrict mean, real *restrict rstd, size M, size C,
                          int n, real epsilon) {
    real m[BLOCK] = {0}, d[BLOCK] = {0}, v[BLOCK] = {0}, k1[BLOCK], k0[BLOCK];
    size at = 0;
    EACH_ROW CHANNELS m[k] += z[at + k];
    CHANNELS m[k] /= M;
    at = 0;
    EACH_ROW CHANNELS {
        real e = z[at + k] - m[k];
        d[k] += e; /* what rounding left of the mean */
        v[k] += e * e;
    }
    CHANNELS {
        d[k] /= M;
        real r = 1 / sqrt(v[k] / M - d[k] * d[k] + epsilon);
        mean[k] = m[k] + d[k];
        rstd[k] = r;
        k1[k] = scale[k] * r;
        k0[k] = shift[k] - k1[k] * mean[k];
    }
    at = 0;
    EACH_ROW CHANNELS {
        real pre = k1[k] * z[at + k] + k0[k];
        y[at + k] = pre <= 0 ? 0 : pre;
    }
}

INLINE void backward_block(const real *restrict dy, const real *restrict z, const real *restrict y, const real *restrict scale, const real *restrict mean, const real *restrict rstd, real *restrict dz,
                           real *restrict dscale, real *restrict dshift, size M, size C, int n) {
    real sg[BLOCK] = {0}, sgh[BLOCK] = {0};
    size at = 0;
    EACH_ROW CHANNELS {
        real g = y[at + k] == 0 ? 0 : dy[at + k];
        sg[k] += g;
        sgh[k] += g * (z[at + k] - mean[k]);
    }
    CHANNELS {
        dshift[k] = sg[k];
        dscale[k] = sgh[k] *= rstd[k];
        sg[k] /= M;
        sgh[k] *= rstd[k] / M;
    }
    at = 0;
    EACH_ROW CHANNELS {
        real g = y[at + k] == 0 ? 0 : dy[at + k];
        dz[at + k] = scale[k] * rstd[k] * (g - sg[k] - (z[at + k] - mean[k]) * sgh[k]);
    }
}

INLINE void double_backward_block(const real *restrict a, const real *restrict b, const real *restrict c, const real *restrict dy, const real *restrict z, const real *restrict y,
                                  const real *restrict scale, const real *restrict mean, const real *restrict rstd, real *restrict by_dy, real *restrict by_z, real *restrict by_scale,
                                  size M, size C, int n) {
    real sa[BLOCK] = {0}, sah[BLOCK] = {0}, sg[BLOCK] = {0}, sgh[BLOCK] = {0}, sag[BLOCK] = {0}, q[BLOCK];
    size at = 0;
    EACH_ROW CHANNELS {
        real g = y[at + k] == 0 ? 0 : dy[at + k], h = (z[at + k] - mean[k]) * rstd[k], u = a[at + k];
        sa[k] += u;
        sah[k] += u * h;
        sg[k] += g;
        sgh[k] += g * h;
        sag[k] += u * g;
    }
    CHANNELS {
        sa[k] /= M, sah[k] /= M, sg[k] /= M, sgh[k] /= M;
        q[k] = sag[k] / M - sa[k] * sg[k] - sah[k] * sgh[k];
        by_scale[k] = rstd[k] * q[k] * M;
    }
    at = 0;
    EACH_ROW CHANNELS {
        real g = y[at + k] == 0 ? 0 : dy[at + k], h = (z[at + k] - mean[k]) * rstd[k];
        real pa = a[at + k] - sa[k] - h * sah[k], pg = g - sg[k] - h * sgh[k], sr = scale[k] * rstd[k];
        by_dy[at + k] = y[at + k] == 0 ? 0 : sr * pa + b[k] * h + c[k];
        by_z[at + k] = rstd[k] * (b[k] * pg - sr * (sgh[k] * pa + sah[k] * pg + h * q[k]));
    }
}

/* A full block has a width that the compiler knows; the last one may be narrower. */
#define OVER_BLOCKS(call)                                  \
    for (size t = 0; t < T; t++)                           \
        for (size f = 0; f < C; f += BLOCK) {              \
            const size i = t * M * C + f, j = t * C + f;   \
            if (C - f >= BLOCK) { const int n = BLOCK; call; } \
            else { const int n = (int)(C - f); call; }     \
        }

/* z [T, M, C]; scale, shift [T, C] -> y [T, M, C]; mean, rstd [T, C] */
void norm_relu(const real *z, const real *scale, const real *shift, real *y, real *mean, real *rstd, size T, size M, size C,
               double epsilon) {
    OVER_BLOCKS(forward_block(z + i, scale + j, shift + j, y + i, mean + j, rstd + j, M, C, n, (real)epsilon))
}

/* dy, z, y [T, M, C]; scale, mean, rstd [T, C] -> dz [T, M, C]; dscale, dshift [T, C] */
void norm_relu_backward(const real *dy, const real *z, const real *y, const real *scale, const real *mean, const real *rstd, real *dz,
                        real *dscale, real *dshift, size T, size M, size C) {
    OVER_BLOCKS(backward_block(dy + i, z + i, y + i, scale + j, mean + j, rstd + j, dz + i, dscale + j, dshift + j, M, C, n))
}

/* a, dy, z, y [T, M, C]; b, c, scale, mean, rstd [T, C] -> by_dy, by_z [T, M, C]; by_scale [T, C] */
void norm_relu_double_backward(const real *a, const real *b, const real *c, const real *dy, const real *z, const real *y,
                               const real *scale, const real *mean, const real *rstd, real *by_dy, real *by_z, real *by_scale, size T,
                               size M, size C) {
    OVER_BLOCKS(double_backward_block(a + i, b + j, c + j, dy + i, z + i, y + i, scale + j, mean + j, rstd + j, by_dy + i, by_z + i,
                                      by_scale + j, M, C, n))
}
