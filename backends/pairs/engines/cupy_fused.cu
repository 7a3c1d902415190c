// Reductions over all pairs, one thread a row: points of y, potentials and weights pass through shared memory in tiles, every
// distance is taken from differences of coordinates, and nothing but the answers is written. Exponents are to base two.
//
// Compiled with REAL (float or double), D (coordinates), R (columns of v), TILE (threads of a block = points of a tile),
// METRIC (0 squared Euclidean, 1 Euclidean, 2 city block, 3 dot product) and SELF (1 leaves the pairs (i, i) out).
// blockIdx.y takes every gridDim.y-th tile, so that few rows still fill the device; the caller adds the parts up.

#define CHUNK 8  // exponents looked at together: one rescaling for all of them

__device__ inline float power(float t) { return exp2f(t); }
__device__ inline double power(double t) { return exp2(t); }

__device__ inline REAL exponent(const REAL *x, const REAL *y, REAL c, REAL scale)
{
    REAL total = 0;
#pragma unroll
    for (int k = 0; k < D; ++k) {
#if METRIC == 3
        total += x[k] * y[k];
#elif METRIC == 2
        const REAL difference = x[k] - y[k];
        total += difference < 0 ? -difference : difference;
#else
        const REAL difference = x[k] - y[k];
        total += difference * difference;
#endif
    }
#if METRIC == 1
    total = sqrt(total);
#endif
    return c - scale * total;
}

// One tile of y (D numbers a point), its potentials, and R weights a point.
#define LOAD_TILE(first)                                                                                   \
    __syncthreads();                                                                                       \
    if ((first) + threadIdx.x < m) {                                                                       \
        for (int k = 0; k < D; ++k) ys[threadIdx.x * D + k] = y[((first) + threadIdx.x) * D + k];          \
        cs[threadIdx.x] = c[(first) + threadIdx.x];                                                        \
        for (int k = 0; k < R; ++k) vs[threadIdx.x * R + k] = v[((first) + threadIdx.x) * R + k];          \
    }                                                                                                      \
    __syncthreads();                                                                                       \
    const int count = m - (first) < TILE ? (int)(m - (first)) : TILE;

// out[part, i, k] = sum_j 2^t_ij v_jk
extern "C" __global__ void pair_sum(const REAL *x, const REAL *y, const REAL *c, const REAL *v, double *out, long long n,
                                    long long m, REAL scale)
{
    __shared__ REAL ys[TILE * D], cs[TILE], vs[TILE * R];
    const long long i = blockIdx.x * (long long)TILE + threadIdx.x;
    REAL p[D];
    double total[R];
    for (int k = 0; k < D; ++k) p[k] = i < n ? x[i * D + k] : 0;
    for (int k = 0; k < R; ++k) total[k] = 0;
    for (long long first = blockIdx.y * (long long)TILE; first < m; first += gridDim.y * (long long)TILE) {
        LOAD_TILE(first)
        REAL part[R];
        for (int k = 0; k < R; ++k) part[k] = 0;
        for (int j = 0; j < count; ++j) {
            REAL e = power(exponent(p, ys + j * D, cs[j], scale));
#if SELF
            if (first + j == i) e = 0;
#endif
            for (int k = 0; k < R; ++k) part[k] += e * vs[j * R + k];
        }
        for (int k = 0; k < R; ++k) total[k] += part[k];
    }
    if (i < n)
        for (int k = 0; k < R; ++k) out[(blockIdx.y * n + i) * R + k] = total[k];
}

// tops[part, i] = a shift near the largest exponent; out[part, i, k] = sum_j 2^(t_ij - top) v_jk. v starts with a column of ones.
extern "C" __global__ void pair_online(const REAL *x, const REAL *y, const REAL *c, const REAL *v, double *out, REAL *tops,
                                       long long n, long long m, REAL scale, REAL lowest)
{
    __shared__ REAL ys[TILE * D], cs[TILE], vs[TILE * R];
    const long long i = blockIdx.x * (long long)TILE + threadIdx.x;
    REAL p[D], part[R];
    double total[R];
    REAL top = lowest;  // finite, so that a row without mass meets no inf - inf
    for (int k = 0; k < D; ++k) p[k] = i < n ? x[i * D + k] : 0;
    for (int k = 0; k < R; ++k) total[k] = 0;
    for (long long first = blockIdx.y * (long long)TILE; first < m; first += gridDim.y * (long long)TILE) {
        LOAD_TILE(first)
        for (int k = 0; k < R; ++k) part[k] = 0;
        for (int start = 0; start < count; start += CHUNK) {
            REAL t[CHUNK], highest = top;
#pragma unroll
            for (int u = 0; u < CHUNK; ++u) {
                const int j = start + u;
                t[u] = j < count ? exponent(p, ys + j * D, cs[j], scale) : 2 * lowest;
#if SELF
                if (first + j == i) t[u] = 2 * lowest;
#endif
                highest = t[u] > highest ? t[u] : highest;
            }
            if (highest > top) {
                const REAL shrink = power(top - highest);
                for (int k = 0; k < R; ++k) part[k] *= shrink, total[k] *= shrink;
                top = highest;
            }
#pragma unroll
            for (int u = 0; u < CHUNK; ++u) {
                if (start + u >= count) break;
                const REAL e = power(t[u] - top);
                for (int k = 0; k < R; ++k) part[k] += e * vs[(start + u) * R + k];
            }
        }
        for (int k = 0; k < R; ++k) total[k] += part[k];
    }
    if (i < n) {
        tops[blockIdx.y * n + i] = top;
        for (int k = 0; k < R; ++k) out[(blockIdx.y * n + i) * R + k] = total[k];
    }
}
