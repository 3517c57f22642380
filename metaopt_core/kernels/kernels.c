/* Loops that PyTorch has no single operation for, over tensors that are contiguous in memory. REAL is float or double.

   Names: T tasks, M rows (examples times positions), C channels. Nothing is allocated here and nothing is threaded: chunks of tasks
   run side by side. No sum is reordered by the compiler, and not-a-numbers pass through. One long file, because one compiler call makes
   all loops for a type, and they share their blocks and inline sums. */

#include <math.h>
#include <string.h>

typedef REAL real;
typedef long long size;

#define BLOCK 16 /* channels whose sums stay in registers */
#define INLINE static inline __attribute__((always_inline))

/* --- Matrix products -------------------------------------------------------------------------------------------------------

   Two inner loops, each for 5 rows of the result (or 1) and as many of its columns as registers hold, wide vectors first and what is
   left over in narrower ones. Rows that are left over are computed together with some that were before, once more. */

#if defined(__AVX512F__)
#define WIDEST 64
#elif defined(__AVX__)
#define WIDEST 32
#else
#define WIDEST 16
#endif

#define ROWS 5
#define TAPS 9 /* of a 3x3 filter */
#define DEPTH 128 /* positions whose products with each other are summed before the next ones are read, while they are in a cache */

typedef real vec16 __attribute__((vector_size(16), aligned(sizeof(real)), may_alias));
typedef real vec32 __attribute__((vector_size(32), aligned(sizeof(real)), may_alias));
typedef real vec64 __attribute__((vector_size(64), aligned(sizeof(real)), may_alias));
typedef real vec1;

/* to[i][.] = sum over taps t and d < depth of from[t][i][d] * with[t][d][.], matrices with[t] [depth, width] */
typedef struct {
    const real *from[TAPS][ROWS], *with[TAPS];
    int taps;
    size depth, width;
    real *to[ROWS];
} Rows;

/* to[i][.] = (to[i][.] where `add` is set) + sum over parts p and m < count of from[p][m][i] * with[p][m][.], with[p] [count, width] */
typedef struct {
    const real *const *from[2], *with[2];
    int parts;
    size count, width, first;
    real *to;
    int add;
    size new;
} Outer;

/* Vector v of a tile begins at column f + AT(v): one after the other, except the last one, which may overlap the one before. */
#define AT(v) ((v) == NV - 1 ? last : (v) * step)
#define TILE(name, vec, NV_)                                                                           \
    INLINE void rows_##name(const Rows *a, size f, size last, const int R) {                           \
        enum { NV = NV_, step = sizeof(vec) / sizeof(real) };                                          \
        vec sum[ROWS][NV];                                                                             \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) sum[i][v] = (vec){0};                                         \
        for (int t = 0; t < a->taps; t++) {                                                            \
            const real *b = a->with[t] + f;                                                            \
            const real *row[ROWS];                                                                     \
            for (int i = 0; i < R; i++) row[i] = a->from[t][i];                                        \
            for (size d = 0; d < a->depth; d++, b += a->width)                                         \
                for (int v = 0; v < NV; v++) {                                                         \
                    const vec w = *(const vec *)(b + AT(v));                                           \
                    for (int i = 0; i < R; i++) sum[i][v] += row[i][d] * w;                            \
                }                                                                                      \
        }                                                                                              \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) *(vec *)(a->to[i] + f + AT(v)) = sum[i][v];                   \
    }                                                                                                  \
    INLINE void outer_##name(const Outer *a, size f, size last, const int R) {                         \
        enum { NV = NV_, step = sizeof(vec) / sizeof(real) };                                          \
        vec sum[ROWS][NV];                                                                             \
        for (int i = 0; i < R; i++)                                                                    \
            for (int v = 0; v < NV; v++) sum[i][v] = (vec){0};                                         \
        for (int p = 0; p < a->parts; p++) {                                                           \
            const real *with = a->with[p] + f;                                                         \
            for (size m = 0; m < a->count; m++, with += a->width) {                                    \
                const real *row = a->from[p][m] + a->first;                                            \
                for (int v = 0; v < NV; v++) {                                                         \
                    const vec w = *(const vec *)(with + AT(v));                                        \
                    for (int i = 0; i < R; i++) sum[i][v] += row[i] * w;                               \
                }                                                                                      \
            }                                                                                          \
        }                                                                                              \
        for (int i = 0; i < R; i++)                                                                    \
            if (i >= a->new) {                                                                         \
                real *const to = a->to + i * a->width + f;                                             \
                if (a->add)                                                                            \
                    for (int v = 0; v < NV; v++) sum[i][v] += *(const vec *)(to + AT(v));              \
                for (int v = 0; v < NV; v++) *(vec *)(to + AT(v)) = sum[i][v];                         \
            }                                                                                          \
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
TILE(64x3, vec64, 3)
TILE(64x4, vec64, 4)
#endif

/* A block of 32 bytes by 32 bytes, in registers: at each stage, halves of increasingly wide pairs of rows are swapped. */
#define LANES ((size)(32 / sizeof(real)))

INLINE void transpose_block(const real *restrict matrix, real *restrict to, size rows, size columns) {
#if defined(__GNUC__) && !defined(__clang__)
    typedef __typeof__(__builtin_choose_expr(sizeof(real) == 4, 0, 0LL)) lane;
    typedef lane lanes __attribute__((vector_size(32)));
    vec32 row[LANES];
    for (int i = 0; i < LANES; i++) row[i] = *(const vec32 *)(matrix + i * columns);
#define STAGE(s)                                                                  \
    if (s < LANES) {                                                              \
        lanes low, high;                                                          \
        for (int l = 0; l < LANES; l++) {                                         \
            low[l] = l & s ? LANES + l - s : l;                                   \
            high[l] = l & s ? LANES + l : l + s;                                  \
        }                                                                         \
        for (int i = 0; i < LANES; i++)                                           \
            if (!(i & s)) {                                                       \
                const vec32 a = row[i], b = row[i + s];                           \
                row[i] = __builtin_shuffle(a, b, low);                            \
                row[i + s] = __builtin_shuffle(a, b, high);                       \
            }                                                                     \
    }
    STAGE(1) STAGE(2) STAGE(4)
    for (int i = 0; i < LANES; i++) *(vec32 *)(to + i * rows) = row[i];
#else
    for (size i = 0; i < LANES; i++)
        for (size j = 0; j < LANES; j++) to[j * rows + i] = matrix[i * columns + j];
#endif
}

#define LANES_OF(bytes) ((size)((bytes) / sizeof(real)))
#define WIDE(kind, name, bytes, vectors) \
    for (; f + LANES_OF(bytes) <= a->width; f += LANES_OF(bytes)) kind##_##name(a, f, LANES_OF(bytes) / (vectors) * ((vectors) - 1), R);
#define RAGGED(kind, name, bytes, vectors)                                                           \
    if (a->width - f > LANES_OF(bytes) / (vectors) * ((vectors) - 1) && a->width - f < LANES_OF(bytes)) { \
        kind##_##name(a, f, a->width - f - LANES_OF(bytes) / (vectors), R);                          \
        return;                                                                                      \
    }
#if WIDEST >= 64
#define COLUMNS(kind)                                                                                  \
    WIDE(kind, 64x4, 256, 4) RAGGED(kind, 64x4, 256, 4) RAGGED(kind, 64x3, 192, 3) RAGGED(kind, 64x2, 128, 2) \
    WIDE(kind, 64x3, 192, 3) WIDE(kind, 64x2, 128, 2) WIDE(kind, 64, 64, 1) WIDE(kind, 32, 32, 1) WIDE(kind, 16, 16, 1)
#elif WIDEST >= 32
#define COLUMNS(kind) WIDE(kind, 32x2, 64, 2) WIDE(kind, 32, 32, 1) WIDE(kind, 16, 16, 1)
#else
#define COLUMNS(kind) WIDE(kind, 16, 16, 1)
#endif

INLINE void rows_columns(const Rows *a, const int R) {
    size f = 0;
    COLUMNS(rows)
    for (; f < a->width; f++) rows_1(a, f, 0, R);
}

INLINE void outer_columns(const Outer *a, const int R) {
    size f = 0;
    COLUMNS(outer)
    for (; f < a->width; f++) outer_1(a, f, 0, R);
}

static void rows_product(const Rows *a, int R) {
    if (R == ROWS) rows_columns(a, ROWS);
    else rows_columns(a, 1);
}

static void outer_product(Outer a, size rows) {
    real *const to = a.to;
    const size R = rows < ROWS ? 1 : ROWS;
    for (size i = 0; i < rows; i += R) {
        a.first = i + R > rows ? rows - R : i;
        a.new = i - a.first; /* the rows before it have been read already */
        a.to = to + a.first * a.width;
        if (R == ROWS) outer_columns(&a, ROWS);
        else outer_columns(&a, 1);
    }
}

/* matrix [rows, columns] -> [columns, rows] */
static void transpose(const real *restrict matrix, real *restrict to, size rows, size columns) {
    const size whole_rows = rows & ~(LANES - 1), whole_columns = columns & ~(LANES - 1);
    for (size i = 0; i < whole_rows; i += LANES)
        for (size j = 0; j < whole_columns; j += LANES) transpose_block(matrix + i * columns + j, to + j * rows + i, rows, columns);
    for (size j = 0; j < columns; j++)
        for (size i = j < whole_columns ? whole_rows : 0; i < rows; i++) to[j * rows + i] = matrix[i * columns + j];
}

/* --- Convolution with 3x3 filters, stride 2, padding 1 ----------------------------------------------------------------------

   Per task: N pictures x [N, H, W, C], weights [3, 3, C, K], y [N, (H + 1) / 2, (W + 1) / 2, K]. `shared` weights are the same for
   every task. `zeros` holds max(C, K) of them: what is outside of a picture. */

void convolve(const real *x, const real *weight, const real *zeros, real *y, size T, size shared, size N, size H, size W, size C, size K) {
    const size P = (H + 1) / 2, Q = (W + 1) / 2, M = N * P * Q, R = M < ROWS ? 1 : ROWS;
    Rows a = {.taps = TAPS, .depth = C, .width = K};
    for (size task = 0; task < T; task++, x += N * H * W * C, y += M * K, weight += shared ? 0 : TAPS * C * K) {
        for (int t = 0; t < TAPS; t++) a.with[t] = weight + t * C * K;
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
            rows_product(&a, R);
        }
    }
}

/* The gradient by x: a position of x takes part in the outputs whose filter covers it, 1, 2 or 4 of them by the position's parity.
   scratch: 9 C K. */
void convolve_input_gradient(const real *dy, const real *weight, const real *zeros, real *dx, real *scratch, size T, size shared, size N,
                             size H, size W, size C, size K) {
    const size P = (H + 1) / 2, Q = (W + 1) / 2;
    for (size task = 0; task < T; task++, dx += N * H * W * C, dy += N * P * Q * K, weight += shared ? 0 : TAPS * C * K) {
        if (task == 0 || !shared)
            for (int t = 0; t < TAPS; t++) transpose(weight + t * C * K, scratch + t * C * K, C, K);
        for (size parity = 0; parity < 4; parity++) {
            const size u0 = parity / 2, v0 = parity % 2, U = (H - u0 + 1) / 2, V = (W - v0 + 1) / 2, M = N * U * V, R = M < ROWS ? 1 : ROWS;
            int which[TAPS];
            Rows a = {.taps = 0, .depth = K, .width = C};
            for (int t = 0; t < TAPS; t++) /* output i covers input u with tap r if u = 2 i - 1 + r */
                if ((t / 3 + u0) % 2 == 1 && (t % 3 + v0) % 2 == 1) {
                    a.with[a.taps] = scratch + t * C * K;
                    which[a.taps++] = t;
                }
            for (size m = 0; m < M; m += R) {
                const size first = m + R > M ? M - R : m;
                for (size i = 0; i < R; i++) {
                    const size at = first + i, n = at / (U * V), u = 2 * (at / V % U) + u0, v = 2 * (at % V) + v0;
                    for (int t = 0; t < a.taps; t++) {
                        const size p = (u + 1 - which[t] / 3) / 2, q = (v + 1 - which[t] % 3) / 2;
                        a.from[t][i] = p >= 0 && p < P && q >= 0 && q < Q ? dy + ((n * P + p) * Q + q) * K : zeros;
                    }
                    a.to[i] = dx + ((n * H + u) * W + v) * C;
                }
                rows_product(&a, R);
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
            for (size m = 0; m < M; m += DEPTH)
                for (int t = 0; t < TAPS; t++) {
                    const size count = M - m < DEPTH ? M - m : DEPTH;
                    outer_product((Outer){{pointers + t * M + m}, {dy + m * K}, 1, count, K, 0, dweight + t * C * K, m > 0}, C);
                }
        } else { /* few channels don't fill a row, but those of all taps do */
            for (int t = 0; t < TAPS; t++)
                for (size m = 0; m < M; m++)
                    for (size c = 0; c < C; c++) scratch[(m * TAPS + t) * C + c] = pointers[t * M + m][c];
            for (size m = 0; m < M; m++) pointers[m] = scratch + m * TAPS * C;
            outer_product((Outer){{pointers}, {dy}, 1, M, K, 0, dweight}, TAPS * C);
        }
    }
}

/* --- Normalization by the statistics of the rows, then ReLU -------------------------------------------------------------

   Per task and channel, with n rows z, mean m, r = 1 / sqrt(variance + epsilon), h = r (z - m):
       y = relu(scale h + shift)
   Upstream dy, masked where scale h + shift is not positive, is g:
       dz = scale r (g - mean(g) - h mean(g h)),  dscale = sum(g h),  dshift = sum(g)
   Upstream (a, b, c) of those three, with P(w) = w - mean(w) - h mean(w h) and q = sum(a P(g)):
       by dy:     mask (scale r P(a) + b h + c)
       by scale:  r q
       by z:      b r P(g) - scale r^2 (mean(g h) P(a) + mean(a h) P(g) + h q / n)
   Derived by hand; the tests hold them against automatic differentiation. */

#define SPAN 64 /* channels at a time */
#define PART 32 /* rows that are summed in `real`; their sums are added in double, so that errors don't grow with the rows */

/* A part of the rows at a time, block of channels by block: memory is read in order. A full block has a width that the compiler
   knows; the last one may be narrower. */
#define EACH_PART(...)                                                                   \
    for (size part = 0; part < M; part += PART)                                          \
        for (int block = 0; block < wide; block += BLOCK) {                              \
            const size rows = M - part < PART ? M - part : PART, from = part * C + block; \
            if (wide - block >= BLOCK) { const int n = BLOCK; __VA_ARGS__ }              \
            else { const int n = wide - block; __VA_ARGS__ }                             \
        }
#define EACH_ROW for (size row = 0, at = from; row < rows; row++, at += C)
#define CHANNELS for (int k = 0; k < n; k++)
#define ALL_CHANNELS for (int k = 0; k < wide; k++)

#define HERE(of) real of##_[BLOCK]; CHANNELS of##_[k] = of[block + k]; /* the block's part, kept in registers */
#define PRE (factor_[k] * z[at + k] + constant_[k]) /* y is relu of it */

INLINE void affine(const real *scale, const real *shift, const real *mean, const real *rstd, real *factor, real *constant, int wide) {
    ALL_CHANNELS {
        factor[k] = scale[k] * rstd[k];
        constant[k] = shift[k] - factor[k] * mean[k];
    }
}

static void forward(const real *restrict z, const real *restrict scale, const real *restrict shift, real *restrict y,
                    real *restrict mean, real *restrict rstd, size M, size C, int wide, double epsilon) {
    double total[SPAN] = {0}, squares[SPAN] = {0};
    real factor[SPAN], constant[SPAN];
    EACH_PART(
        real sum[BLOCK] = {0};
        EACH_ROW CHANNELS sum[k] += z[at + k];
        CHANNELS total[block + k] += sum[k];)
    ALL_CHANNELS mean[k] = total[k] / M;
    EACH_PART(
        real sum[BLOCK] = {0};
        HERE(mean)
        EACH_ROW CHANNELS sum[k] += (z[at + k] - mean_[k]) * (z[at + k] - mean_[k]);
        CHANNELS squares[block + k] += sum[k];)
    ALL_CHANNELS rstd[k] = 1 / sqrt(squares[k] / M + epsilon);
    affine(scale, shift, mean, rstd, factor, constant, wide);
    EACH_PART(
        HERE(factor) HERE(constant)
        EACH_ROW CHANNELS y[at + k] = PRE <= 0 ? 0 : PRE;)
}

static void backward(const real *restrict dy, const real *restrict z, const real *restrict scale, const real *restrict shift,
                     const real *restrict mean, const real *restrict rstd, real *restrict dz, real *restrict dscale,
                     real *restrict dshift, size M, size C, int wide) {
    double g_total[SPAN] = {0}, gh_total[SPAN] = {0};
    real factor[SPAN], constant[SPAN], mg[SPAN], mgh[SPAN];
    affine(scale, shift, mean, rstd, factor, constant, wide);
    EACH_PART(
        real sg[BLOCK] = {0}, sgh[BLOCK] = {0};
        HERE(factor) HERE(constant) HERE(mean)
        EACH_ROW CHANNELS {
            real d = dy[at + k], g = PRE <= 0 ? 0 : d; /* read unconditionally, or the loop is not vectorized */
            sg[k] += g;
            sgh[k] += g * (z[at + k] - mean_[k]);
        }
        CHANNELS g_total[block + k] += sg[k];
        CHANNELS gh_total[block + k] += sgh[k];)
    ALL_CHANNELS {
        dshift[k] = g_total[k];
        dscale[k] = gh_total[k] * rstd[k];
        mg[k] = g_total[k] / M;
        mgh[k] = gh_total[k] * rstd[k] * rstd[k] / M; /* times z - mean it is h mean(g h) */
    }
    EACH_PART(
        HERE(factor) HERE(constant) HERE(mean) HERE(mg) HERE(mgh)
        EACH_ROW CHANNELS {
            real d = dy[at + k], g = PRE <= 0 ? 0 : d;
            dz[at + k] = factor_[k] * (g - mg_[k] - (z[at + k] - mean_[k]) * mgh_[k]);
        })
}

static void double_backward(const real *restrict a, const real *restrict b, const real *restrict c, const real *restrict dy,
                            const real *restrict z, const real *restrict scale, const real *restrict shift,
                            const real *restrict mean, const real *restrict rstd, real *restrict by_dy, real *restrict by_z,
                            real *restrict by_scale, size M, size C, int wide) {
    double totals[5][SPAN] = {0};
    real factor[SPAN], constant[SPAN], ma[SPAN], mah[SPAN], mg[SPAN], mgh[SPAN], q[SPAN];
    affine(scale, shift, mean, rstd, factor, constant, wide);
    EACH_PART(
        real sa[BLOCK] = {0}, sah[BLOCK] = {0}, sg[BLOCK] = {0}, sgh[BLOCK] = {0}, sag[BLOCK] = {0};
        HERE(factor) HERE(constant) HERE(mean) HERE(rstd)
        EACH_ROW CHANNELS {
            real d = dy[at + k], g = PRE <= 0 ? 0 : d, h = (z[at + k] - mean_[k]) * rstd_[k], u = a[at + k];
            sa[k] += u;
            sah[k] += u * h;
            sg[k] += g;
            sgh[k] += g * h;
            sag[k] += u * g;
        }
        CHANNELS totals[0][block + k] += sa[k];
        CHANNELS totals[1][block + k] += sah[k];
        CHANNELS totals[2][block + k] += sg[k];
        CHANNELS totals[3][block + k] += sgh[k];
        CHANNELS totals[4][block + k] += sag[k];)
    ALL_CHANNELS {
        for (int i = 0; i < 5; i++) totals[i][k] /= M;
        ma[k] = totals[0][k], mah[k] = totals[1][k], mg[k] = totals[2][k], mgh[k] = totals[3][k];
        q[k] = totals[4][k] - totals[0][k] * totals[2][k] - totals[1][k] * totals[3][k];
        by_scale[k] = rstd[k] * q[k] * M;
    }
    EACH_PART(
        HERE(factor) HERE(constant) HERE(mean) HERE(rstd) HERE(b) HERE(c) HERE(ma) HERE(mah) HERE(mg) HERE(mgh) HERE(q)
        EACH_ROW CHANNELS {
            real d = dy[at + k], pre = PRE, g = pre <= 0 ? 0 : d, h = (z[at + k] - mean_[k]) * rstd_[k];
            real pa = a[at + k] - ma_[k] - h * mah_[k], pg = g - mg_[k] - h * mgh_[k];
            real by = factor_[k] * pa + b_[k] * h + c_[k];
            by_dy[at + k] = pre <= 0 ? 0 : by;
            by_z[at + k] = rstd_[k] * (b_[k] * pg - factor_[k] * (mgh_[k] * pa + mah_[k] * pg + h * q_[k]));
        })
}

#define EACH_TASK(call)                                                 \
    for (size t = 0; t < T; t++)                                        \
        for (size f = 0; f < C; f += SPAN) {                            \
            const size i = t * M * C + f, j = t * C + f;                \
            const int wide = C - f < SPAN ? (int)(C - f) : SPAN;        \
            call;                                                       \
        }

/* z [T, M, C]; scale, shift [T, C] -> y [T, M, C]; mean, rstd [T, C] */
void norm_relu(const real *z, const real *scale, const real *shift, real *y, real *mean, real *rstd, size T, size M, size C,
               double epsilon) {
    EACH_TASK(forward(z + i, scale + j, shift + j, y + i, mean + j, rstd + j, M, C, wide, epsilon))
}

/* dy, z [T, M, C]; scale, shift, mean, rstd [T, C] -> dz [T, M, C]; dscale, dshift [T, C] */
void norm_relu_backward(const real *dy, const real *z, const real *scale, const real *shift, const real *mean, const real *rstd,
                        real *dz, real *dscale, real *dshift, size T, size M, size C) {
    EACH_TASK(backward(dy + i, z + i, scale + j, shift + j, mean + j, rstd + j, dz + i, dscale + j, dshift + j, M, C, wide))
}

/* a, dy, z [T, M, C]; b, c, scale, shift, mean, rstd [T, C] -> by_dy, by_z [T, M, C]; by_scale [T, C] */
void norm_relu_double_backward(const real *a, const real *b, const real *c, const real *dy, const real *z, const real *scale,
                               const real *shift, const real *mean, const real *rstd, real *by_dy, real *by_z, real *by_scale,
                               size T, size M, size C) {
    EACH_TASK(double_backward(a + i, b + j, c + j, dy + i, z + i, scale + j, shift + j, mean + j, rstd + j, by_dy + i, by_z + i,
                              by_scale + j, M, C, wide))
}

/* --- A fully connected network with ReLU and the squared error ------------------------------------------------------------

   Per task: x [N, D_0], parameters theta = W_0, b_0, W_1, ... concatenated, with W_l [D_l, D_l+1] and b_l [D_l+1], `stride`
   numbers from one task's to the next's (0: all share them). a_0 = x, z_l = a_l W_l + b_l, a_l+1 = relu(z_l) but for the last,
   loss = sum over n of weight_n times the mean over outputs of (z_L - y)^2; weight_n is `uniform` where `weights` is null.

   The product of the Hessian with a direction (U_l, v_l) is the derivative of the gradient along it (Pearlmutter 1994), written R:
       R z_l = R a_l W_l + a_l U_l + v_l,     R dW_l = a_l' R dz_l + R a_l' dz_l,     R da_l = R dz_l W_l' + dz_l U_l'
   It needs the a_l and dz_l that the gradient leaves in `work`: 2 N S a task with S = D_0 + D_1 + ..., then 2 N S and 2 sum(D_l D_l+1)
   for all. */

/* z [N, K] = sum over parts of a_i [N, D] W_i [D, K] */
static void multiply(const real *const *a, const real *const *W, int parts, real *restrict z, size N, size D, size K) {
    const size R = N < ROWS ? 1 : ROWS;
    Rows rows = {.taps = parts, .depth = D, .width = K};
    for (int t = 0; t < parts; t++) rows.with[t] = W[t];
    for (size m = 0; m < N; m += R) {
        const size first = m + R > N ? N - R : m;
        for (size i = 0; i < R; i++) {
            for (int t = 0; t < parts; t++) rows.from[t][i] = a[t] + (first + i) * D;
            rows.to[i] = z + (first + i) * K;
        }
        rows_product(&rows, R);
    }
}

static void add_bias(real *restrict z, const real *restrict b, size N, size K, int relu) {
    for (size n = 0; n < N; n++, z += K)
        for (size k = 0; k < K; k++) {
            const real value = z[k] + b[k];
            z[k] = relu && value <= 0 ? 0 : value;
        }
}

/* zero where a is */
static void mask(real *restrict z, const real *restrict a, size count) {
    for (size i = 0; i < count; i++) {
        const real value = z[i]; /* read unconditionally, or the loop is not vectorized */
        z[i] = a[i] == 0 ? 0 : value;
    }
}

static void column_sums(const real *restrict z, real *restrict sums, size N, size K) {
    for (size k = 0; k < K; k++) sums[k] = 0;
    for (size n = 0; n < N; n++)
        for (size k = 0; k < K; k++) sums[k] += z[n * K + k];
}

static void point(const real **pointers, const real *rows, size N, size D) {
    for (size n = 0; n < N; n++) pointers[n] = rows + n * D;
}

/* Numbers in all layers' inputs and outputs, or (parameters) in all W_l and b_l, or (weights alone) in all W_l. */
enum { UNITS, PARAMETERS, WEIGHTS };
static size total(const size *widths, size L, int what) {
    size sum = what == UNITS ? widths[0] : 0;
    for (size l = 0; l < L; l++)
        sum += what == UNITS ? widths[l + 1] : widths[l] * widths[l + 1] + (what == PARAMETERS ? widths[l + 1] : 0);
    return sum;
}

/* losses [T], gradient [T, P]; pointers: N of them */
void mlp_gradient(size T, size N, size L, const size *widths, double uniform, const real *x, const real *y, const real *weights,
                  const real *theta, size stride, real *losses, real *gradient, real *work, const real **pointers) {
    const size S = total(widths, L, UNITS), P = total(widths, L, PARAMETERS), O = widths[L];
    real *const transposed = work + 2 * (T + 1) * N * S;
    for (size task = 0; task < T; task++, work += 2 * N * S, x += N * widths[0], y += N * O, theta += stride, gradient += P) {
        real *a = work, *dz = work + 2 * N * S - N * O; /* the last layer's are last in both */
        const real *W = theta, *from = x;
        for (size l = 0; l < L; l++) {
            const size D = widths[l], K = widths[l + 1];
            a += N * D;
            multiply(&from, &W, 1, a, N, D, K);
            add_bias(a, W + D * K, N, K, l < L - 1);
            from = a;
            W += (D + 1) * K;
        }

        double loss = 0;
        for (size n = 0; n < N; n++) {
            const double weight = weights ? weights[task * N + n] : uniform;
            for (size o = n * O; o < (n + 1) * O; o++) {
                const real e = a[o] - y[o];
                loss += weight / O * e * e;
                dz[o] = (real)(2 * weight / O) * e;
            }
        }
        losses[task] = (real)loss;

        real *dW = gradient + P, *Wt = transposed + total(widths, L, WEIGHTS);
        for (size l = L; l-- > 0;) {
            const size D = widths[l], K = widths[l + 1];
            a -= N * D;
            W -= (D + 1) * K;
            dW -= (D + 1) * K;
            Wt -= D * K;
            point(pointers, l ? a : x, N, D);
            outer_product((Outer){{pointers}, {dz}, 1, N, K, 0, dW}, D);
            column_sums(dz, dW + D * K, N, K);
            if (l == 0) break;
            if (stride || task == 0) transpose(W, Wt, D, K);
            const real *upper = dz, *with = Wt;
            dz -= N * D;
            multiply(&upper, &with, 1, dz, N, K, D);
            mask(dz, a, N * D);
        }
    }
}

/* product [T, P] with direction [T, P], at the theta of the last gradient, whose `work` it is; pointers: 2 N of them */
void mlp_product(size T, size N, size L, const size *widths, double uniform, const real *x, const real *weights, const real *theta,
                 size stride, const real *direction, real *product, real *work, const real **pointers) {
    const size S = total(widths, L, UNITS), P = total(widths, L, PARAMETERS), O = widths[L];
    real *const derivatives = work + 2 * T * N * S, *const transposed = derivatives + 2 * N * S;
    for (size task = 0; task < T; task++, work += 2 * N * S, x += N * widths[0], theta += stride, direction += P, product += P) {
        const real *a = work, *dz = work + 2 * N * S - N * O, *W = theta, *U = direction, *from = x;
        real *ra = derivatives, *rdz = derivatives + 2 * N * S - N * O;
        for (size l = 0; l < L; l++) {
            const size D = widths[l], K = widths[l + 1];
            const real *both[2] = {from, ra}, *with[2] = {U, W};
            ra += N * D;
            multiply(both, with, l ? 2 : 1, ra, N, D, K); /* the input has no derivative */
            a += N * D;
            add_bias(ra, U + D * K, N, K, 0);
            if (l < L - 1) mask(ra, a, N * K);
            from = a;
            W += (D + 1) * K;
            U += (D + 1) * K;
        }

        for (size n = 0; n < N; n++)
            for (size o = n * O; o < (n + 1) * O; o++) rdz[o] = (real)(2 * (weights ? weights[task * N + n] : uniform) / O) * ra[o];

        real *dW = product + P, *Wt = transposed + total(widths, L, WEIGHTS), *Ut = Wt + total(widths, L, WEIGHTS);
        for (size l = L; l-- > 0;) {
            const size D = widths[l], K = widths[l + 1];
            a -= N * D;
            ra -= N * D;
            W -= (D + 1) * K;
            U -= (D + 1) * K;
            dW -= (D + 1) * K;
            Wt -= D * K;
            Ut -= D * K;
            point(pointers, l ? a : x, N, D);
            point(pointers + N, ra, N, D);
            outer_product((Outer){{pointers, pointers + N}, {rdz, dz}, l ? 2 : 1, N, K, 0, dW}, D);
            column_sums(rdz, dW + D * K, N, K);
            if (l == 0) break;
            if (stride && T > 1) transpose(W, Wt, D, K); /* or the gradient has left it there */
            transpose(U, Ut, D, K);
            const real *both[2] = {rdz, dz}, *with[2] = {Wt, Ut};
            rdz -= N * D;
            dz -= N * D;
            multiply(both, with, 2, rdz, N, K, D);
            mask(rdz, a, N * D);
        }
    }
}

/* Numbers in `work` for T tasks of N examples. */
static size work_size(size T, size N, size L, const size *widths) {
    return 2 * (T + 1) * N * total(widths, L, UNITS) + 2 * total(widths, L, WEIGHTS);
}

/* Adds to sum [P] each task's exact gradient of the loss on M query examples after K steps of size lr on N support examples, by the
   theta that they start from: one task after the other, so that all of a task stays in the caches. losses [T]: those of the queries.
   work: (K + 4) P, K times work_size(1, N), and work_size(1, M). pointers: 2 N of them, or M where that is more. */
void mlp_exact(size T, size K, size L, const size *widths, double lr, size N, double uniform, const real *x, const real *y,
               const real *weights, size M, double query_uniform, const real *query_x, const real *query_y, const real *query_weights,
               const real *theta, size stride, real *losses, real *sum, real *work, const real **pointers) {
    const size P = total(widths, L, PARAMETERS), D = widths[0], O = widths[L], each = work_size(1, N, L, widths);
    real *const gradient = work + (K + 1) * P, *const scaled = gradient + P, *const v = scaled + P;
    real *const steps = v + P, *const last = steps + K * each;
    for (size task = 0; task < T; task++, theta += stride) {
        const real *tx = x + task * N * D, *ty = y + task * N * O, *tw = weights ? weights + task * N : 0;
        const real *at = theta;
        for (size k = 0; k < K; k++) {
            real *next = work + (k + 1) * P;
            mlp_gradient(1, N, L, widths, uniform, tx, ty, tw, at, 0, losses + task, gradient, steps + k * each, pointers);
            for (size i = 0; i < P; i++) next[i] = at[i] - (real)lr * gradient[i];
            at = next;
        }
        mlp_gradient(1, M, L, widths, query_uniform, query_x + task * M * D, query_y + task * M * O,
                     query_weights ? query_weights + task * M : 0, at, 0, losses + task, v, last, pointers);
        for (size k = K; k-- > 0;) {
            for (size i = 0; i < P; i++) scaled[i] = (real)lr * v[i];
            mlp_product(1, N, L, widths, uniform, tx, tw, k ? work + k * P : theta, 0, scaled, gradient, steps + k * each,
                        pointers);
            for (size i = 0; i < P; i++) v[i] -= gradient[i];
        }
        for (size i = 0; i < P; i++) sum[i] += v[i];
    }
}
