// Linear attention and the depthwise convolution of its values on a CPU: outputs and gradients.
//
// out_n = p_n KV / (p_n Z + eps / f_n), where phi = f p are the features of a token, and over the keys m of the token's
// region KV = mean f_m p_m v_m^T and Z = mean f_m p_m. p has what differs between channels, f is one number per token:
// a query's cancels but for eps, a key's goes to its value, so features are computed a few tokens at a time, stay in
// the cache and are never written. The gradients compute them once more: only q, k, v and the sums are saved.
//
// Shapes: q (B, N, H F), k (B, M, H F), v (B, M, H V), out (B, N, H V); sums (B, R, H F V + H F), KV before Z. `onto`
// (B, N, H V), or null, is added to the output. Strides of the batch and of the tokens are free. All sums are taken in
// an order that does not depend on the threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace {

constexpr int64_t CHUNK = 512;  // tokens that one thread sums up
constexpr int64_t BLOCK = 24;   // tokens whose features are in the cache together

template <typename T>
constexpr T EPS = T(1e-6);  // as in _linear.py

template <typename T>
struct Tokens {  // (B, count, channels)
    T* data;
    int64_t count, batch_stride, token_stride;
    T* at(int64_t b, int64_t n) const { return data + b * batch_stride + n * token_stride; }
};

enum FeatureMap : int64_t { GIVEN, RELU, FOCUSED };

template <typename T>
struct Features {
    int64_t map, power;
    const T* scale;     // (C), what FOCUSED multiplies with: 1 / softplus
    const T* encoding;  // (M, C), added to the keys; or null
};

template <typename T>
struct Problem {
    int64_t batch, heads, features, values, regions;
    int64_t normalised;                          // 0: without the division
    const int64_t *query_regions, *key_regions;  // (B, N), (B, M); null for one region
    Tokens<const T> q, k, v;
    Features<T> of_q, of_k;

    int64_t channels() const { return heads * features; }
    int64_t outputs() const { return heads * values; }
    int64_t products() const { return heads * features * values; }  // KV; Z lies behind it
    int64_t sums() const { return products() + channels(); }
};

// C (rows, columns) += A (rows, depth) B (depth, columns), ROWS x VECTORS registers at a time.
#ifdef __AVX512F__
constexpr int REGISTER = 64;  // bytes
#else
constexpr int REGISTER = 32;
#endif

template <typename T, int BYTES = REGISTER>
struct Vector {
    static constexpr int64_t WIDTH = BYTES / sizeof(T);
    typedef T Type __attribute__((vector_size(BYTES), aligned(alignof(T)), may_alias));
};

template <typename T, int ROWS, int VECTORS, int BYTES = REGISTER>
inline void add_tile(int64_t depth, const T* a, int64_t a_row, int64_t a_depth, const T* b, int64_t b_depth, T* c,
                     int64_t c_row) {
    using Type = typename Vector<T, BYTES>::Type;
    // From zero, and added at the end: sums of sums round less.
    Type sum[ROWS][VECTORS] = {};
    for (int64_t d = 0; d < depth; d++, b += b_depth, a += a_depth) {
        const Type* row = reinterpret_cast<const Type*>(b);
        for (int r = 0; r < ROWS; r++)
            for (int x = 0; x < VECTORS; x++) sum[r][x] += a[r * a_row] * row[x];
    }
    for (int r = 0; r < ROWS; r++)
        for (int x = 0; x < VECTORS; x++) reinterpret_cast<Type*>(c + r * c_row)[x] += sum[r][x];
}

template <typename T, int ROWS>
inline void add_rows(int64_t columns, int64_t depth, const T* a, int64_t a_row, int64_t a_depth, const T* b,
                     int64_t b_depth, T* c, int64_t c_row) {
    constexpr int64_t WIDTH = Vector<T>::WIDTH;
    int64_t j = 0;
    for (; j + 2 * WIDTH <= columns; j += 2 * WIDTH)
        add_tile<T, ROWS, 2>(depth, a, a_row, a_depth, b + j, b_depth, c + j, c_row);
    for (; j + WIDTH <= columns; j += WIDTH)
        add_tile<T, ROWS, 1>(depth, a, a_row, a_depth, b + j, b_depth, c + j, c_row);
    for (; j + 32 / int64_t(sizeof(T)) <= columns; j += 32 / sizeof(T))
        add_tile<T, ROWS, 1, 32>(depth, a, a_row, a_depth, b + j, b_depth, c + j, c_row);
    for (; j < columns; j++)
        for (int r = 0; r < ROWS; r++) {
            T sum = 0;
            for (int64_t d = 0; d < depth; d++) sum += a[r * a_row + d * a_depth] * b[d * b_depth + j];
            c[r * c_row + j] += sum;
        }
}

template <typename T>
void add_product(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t a_row, int64_t a_depth, const T* b,
                 int64_t b_depth, T* c, int64_t c_row) {
    const auto add = [&](auto rows_at_once, int64_t& r) {
        constexpr int ROWS = decltype(rows_at_once)::value;
        for (; r + ROWS <= rows; r += ROWS)
            add_rows<T, ROWS>(columns, depth, a + r * a_row, a_row, a_depth, b, b_depth, c + r * c_row, c_row);
    };
    int64_t r = 0;
    add(std::integral_constant<int, 6>(), r);
    add(std::integral_constant<int, 4>(), r);
    add(std::integral_constant<int, 2>(), r);
    add(std::integral_constant<int, 1>(), r);
}

// Asks for a token that is read BLOCK tokens later: rows of a slice lie too far apart for the hardware to guess.
template <typename T>
inline void fetch(const Tokens<const T>& x, const T* token, int64_t channels) {
    for (int64_t c = 0; c < channels; c += 64 / sizeof(T)) __builtin_prefetch(token + BLOCK * x.token_stride + c);
}

// Memory that a thread works in; it holds anything.
template <typename T>
std::unique_ptr<T[]> scratch(int64_t size) {
    return std::unique_ptr<T[]>(new T[size]);
}

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// What is not a number stays so, as with torch's relu.
template <typename T>
inline T rectified(T x) {
    return x < 0 ? T(0) : x;
}

// Writes p (C) of token n, and base (C), what was raised to the power; returns f.
template <typename T>
T features(const Features<T>& of, const T* x, int64_t channels, int64_t n, T* __restrict base, T* __restrict p) {
    const T* __restrict scale = of.scale;
    if (of.map == GIVEN) {
        std::copy(x, x + channels, p);
        return 1;
    }
    if (of.map == RELU) {
        for (int64_t c = 0; c < channels; c++) p[c] = rectified(x[c]);
        return 1;
    }
    if (of.encoding) {
        const T* encoding = of.encoding + n * channels;
        for (int64_t c = 0; c < channels; c++) base[c] = x[c] + encoding[c];
        x = base;
    }
    T most = 0, length = 0, power_length = 0;
#pragma omp simd reduction(max : most) reduction(+ : length, power_length)
    for (int64_t c = 0; c < channels; c++) {
        const T y = (rectified(x[c]) + EPS<T>)*scale[c], cube = y * y * y;
        base[c] = y;
        p[c] = cube;
        most = y > most ? y : most;
        length += y * y;
        power_length += cube * cube;
    }
    if (of.power == 1) {
        std::copy(base, base + channels, p);
        return 1;
    }
    if (of.power != 3 || !(power_length > T(1e-20) && power_length < T(1e20))) {
        // The direction does not depend on the scale of x: with a largest channel of 1, no power leaves the range.
        const T inverse = 1 / most;
        for (int64_t c = 0; c < channels; c++) p[c] = base[c] * inverse;
        for (int64_t e = 1; e < of.power; e++)
            for (int64_t c = 0; c < channels; c++) p[c] *= base[c] * inverse;
        power_length = dot(p, p, channels);
    }
    return std::sqrt(length / power_length);
}

// From the gradients of p (C) and f to that of the token (C); adds to the gradient of the scale (C).
template <typename T>
void features_backward(const Features<T>& of, const T* x, int64_t channels, int64_t n, const T* base, const T* p, T f,
                       const T* d_p, T d_f, T* d_x, T* d_scale) {
    if (of.map == GIVEN) {
        std::copy(d_p, d_p + channels, d_x);
        return;
    }
    if (of.map == RELU) {
        for (int64_t c = 0; c < channels; c++) d_x[c] = x[c] <= 0 ? T(0) : d_p[c];
        return;
    }
    // f = |base| / |p|; p = base^power up to a constant, so its derivative is power p / base. base is positive.
    const T power_length = dot(p, p, channels), length = f * f * power_length;
    const T of_base = d_f * f / length, of_p = -d_f * f / power_length, power = of.power;
    const bool bent = of.power > 1;
    const T* encoding = of.encoding ? of.encoding + n * channels : nullptr;
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) {
        const T d_base = bent ? of_base * base[c] + (d_p[c] + of_p * p[c]) * power * p[c] / base[c] : d_p[c];
        d_scale[c] += d_base * base[c] / of.scale[c];
        d_x[c] = d_base * of.scale[c];
    }
    if (encoding)
        for (int64_t c = 0; c < channels; c++) d_x[c] = x[c] + encoding[c] <= 0 ? T(0) : d_x[c];
    else
        for (int64_t c = 0; c < channels; c++) d_x[c] = x[c] <= 0 ? T(0) : d_x[c];
}

int64_t chunks_of(int64_t tokens) { return (tokens + CHUNK - 1) / CHUNK; }

// Calls work(b, from, to, chunk) for all tokens, in pieces that one thread does.
template <typename Work>
void in_chunks(int64_t batch, int64_t tokens, const Work& work) {
    const int64_t chunks = chunks_of(tokens);
#pragma omp parallel for schedule(static) if (batch * chunks > 1)
    for (int64_t chunk = 0; chunk < batch * chunks; chunk++) {
        const int64_t from = chunk % chunks * CHUNK;
        work(chunk / chunks, from, std::min(from + CHUNK, tokens), chunk);
    }
}

// Calls work(region, from, to) for pieces, of about BLOCK tokens, of the runs of tokens of one region.
template <typename Work>
void in_blocks(const int64_t* regions, int64_t from, int64_t to, const Work& work) {
    while (from < to) {
        int64_t end = from + 1;
        while (end < to && (!regions || regions[end] == regions[from])) end++;
        const int64_t region = regions ? regions[from] : 0;
        for (int64_t pieces = (end - from + BLOCK - 1) / BLOCK; pieces > 0; pieces--) {
            const int64_t next = from + (end - from) / pieces;
            work(region, from, next);
            from = next;
        }
    }
}

// A sum (groups, size) that chunks of a group add to apart. With one chunk for each, it is the result itself.
template <typename T>
class Parts {
  public:
    Parts(int64_t groups, int64_t chunks, int64_t size, T* out)
        : groups(groups),
          chunks(chunks),
          size(size),
          out(out),
          own(chunks > 1 ? new T[groups * chunks * size] : nullptr) {}

    // Of chunk number c among all groups, from zero.
    T* begin(int64_t c) {
        T* part = (own ? own.get() : out) + c * size;
        std::fill(part, part + size, T(0));
        return part;
    }

    void add_up() {
        if (!own) return;
#pragma omp parallel for if (groups > 1)
        for (int64_t g = 0; g < groups; g++) {
            const T* part = own.get() + g * chunks * size;
            std::copy(part, part + size, out + g * size);
            for (int64_t chunk = 1; chunk < chunks; chunk++)
                for (int64_t i = 0; i < size; i++) out[g * size + i] += part[chunk * size + i];
        }
    }

  private:
    int64_t groups, chunks, size;
    T* out;
    std::unique_ptr<T[]> own;
};

// KV (F, V) of each head, transposed: (V, F).
template <typename T>
std::vector<T> transposed(const Problem<T>& s, const T* sums) {
    std::vector<T> out(s.batch * s.regions * s.products());
#pragma omp parallel for
    for (int64_t g = 0; g < s.batch * s.regions; g++)
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t i = 0; i < s.features; i++)
                for (int64_t j = 0; j < s.values; j++)
                    out[g * s.products() + (h * s.values + j) * s.features + i] =
                        sums[g * s.sums() + (h * s.features + i) * s.values + j];
    return out;
}

template <typename T>
void forward(const Problem<T>& s, const T* onto, T* sums, T* out) {
    const int64_t C = s.channels(), O = s.outputs(), F = s.features, V = s.values;
    Parts<T> parts(s.batch, chunks_of(s.k.count), s.regions * s.sums(), sums);
    in_chunks(s.batch, s.k.count, [&](int64_t b, int64_t first, int64_t last, int64_t chunk) {
        T* part = parts.begin(chunk);
        const auto base = scratch<T>(C);
        const auto p = scratch<T>(BLOCK * C);
        const auto weighted = scratch<T>(BLOCK * O);
        const auto of_z = scratch<T>(C);
        const int64_t* regions = s.key_regions ? s.key_regions + b * s.k.count : nullptr;
        in_blocks(regions, first, last, [&](int64_t region, int64_t from, int64_t to) {
            T* products = part + region * s.sums();
            T* z = products + s.products();
            std::fill_n(of_z.get(), C, T(0));
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                const T *k = s.k.at(b, n), *v = s.v.at(b, n);
                fetch(s.k, k, C);
                fetch(s.v, v, O);
                const T f = features(s.of_k, k, C, n, base.get(), &p[t * C]) / s.k.count;
                for (int64_t c = 0; c < C; c++) of_z[c] += f * p[t * C + c];
                for (int64_t c = 0; c < O; c++) weighted[t * O + c] = f * v[c];
            }
            for (int64_t c = 0; c < C; c++) z[c] += of_z[c];
            for (int64_t h = 0; h < s.heads; h++)
                add_product(F, V, to - from, &p[h * F], 1, C, &weighted[h * V], O, products + h * F * V, V);
        });
    });
    parts.add_up();
    in_chunks(s.batch, s.q.count, [&](int64_t b, int64_t first, int64_t last, int64_t) {
        const auto base = scratch<T>(C);
        const auto p = scratch<T>(BLOCK * C);
        const int64_t* regions = s.query_regions ? s.query_regions + b * s.q.count : nullptr;
        in_blocks(regions, first, last, [&](int64_t region, int64_t from, int64_t to) {
            const T *products = sums + (b * s.regions + region) * s.sums(), *z = products + s.products();
            T* y = out + (b * s.q.count + from) * O;
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                const T* q = s.q.at(b, n);
                fetch(s.q, q, C);
                const T f = features(s.of_q, q, C, n, base.get(), &p[t * C]);
                for (int64_t h = 0; h < s.heads; h++) {
                    T* head = &p[t * C + h * F];
                    const T inverse = s.normalised ? 1 / (dot(head, z + h * F, F) + EPS<T> / f) : f;
                    for (int64_t i = 0; i < F; i++) head[i] *= inverse;
                }
            }
            const T* added = onto ? onto + (b * s.q.count + from) * O : nullptr;
            for (int64_t i = 0; i < (to - from) * O; i++) y[i] = added ? added[i] : T(0);
            for (int64_t h = 0; h < s.heads; h++)
                add_product(to - from, V, F, &p[h * F], C, 1, products + h * F * V, V, y + h * V, O);
        });
    });
}

template <typename T>
void backward(const Problem<T>& s, const T* sums, const T* d_out, T* d_sums, T* d_q, T* d_k, T* d_v, T* d_scale) {
    const int64_t C = s.channels(), O = s.outputs(), F = s.features, V = s.values;
    const int64_t of_queries = s.batch * chunks_of(s.q.count), of_keys = s.batch * chunks_of(s.k.count);
    Parts<T> parts(s.batch, chunks_of(s.q.count), s.regions * s.sums(), d_sums),
        scales(1, of_queries + of_keys, C, d_scale);
    std::vector<T> turned = transposed(s, sums);
    in_chunks(s.batch, s.q.count, [&](int64_t b, int64_t first, int64_t last, int64_t chunk) {
        T *part = parts.begin(chunk), *of_scale = scales.begin(chunk);
        const auto base = scratch<T>(BLOCK * C);
        const auto p = scratch<T>(BLOCK * C);
        const auto d_p = scratch<T>(BLOCK * C);
        const auto weighted = scratch<T>(BLOCK * O);
        const auto f = scratch<T>(BLOCK);
        const auto inverse = scratch<T>(BLOCK * s.heads);
        const int64_t* regions = s.query_regions ? s.query_regions + b * s.q.count : nullptr;
        in_blocks(regions, first, last, [&](int64_t region, int64_t from, int64_t to) {
            const int64_t group = b * s.regions + region;
            const T* z = sums + group * s.sums() + s.products();
            T* d_products = part + region * s.sums();
            T* d_z = d_products + s.products();
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                f[t] = features(s.of_q, s.q.at(b, n), C, n, &base[t * C], &p[t * C]);
                const T* g = d_out + (b * s.q.count + n) * O;
                for (int64_t h = 0; h < s.heads; h++) {
                    const T sum = dot(&p[t * C + h * F], z + h * F, F) + EPS<T> / f[t];
                    const T one = inverse[t * s.heads + h] = s.normalised ? 1 / sum : f[t];
                    for (int64_t j = 0; j < V; j++) weighted[t * O + h * V + j] = g[h * V + j] * one;
                }
            }
            std::fill_n(d_p.get(), (to - from) * C, T(0));
            for (int64_t h = 0; h < s.heads; h++) {
                add_product(to - from, F, V, &weighted[h * V], O, 1, &turned[group * s.products() + h * F * V], F,
                            &d_p[h * F], C);
                add_product(F, V, to - from, &p[h * F], 1, C, &weighted[h * V], O, d_products + h * F * V, V);
            }
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                T d_f = 0;
                for (int64_t h = 0; h < s.heads; h++) {
                    const T* head = &p[t * C + h * F];
                    const T by_f = dot(head, &d_p[t * C + h * F], F);
                    if (!s.normalised) {
                        d_f += by_f / f[t];
                        continue;
                    }
                    const T d_normaliser = -by_f * inverse[t * s.heads + h];
                    for (int64_t i = 0; i < F; i++) {
                        d_p[t * C + h * F + i] += d_normaliser * z[h * F + i];
                        d_z[h * F + i] += d_normaliser * head[i];
                    }
                    d_f -= d_normaliser * EPS<T> / (f[t] * f[t]);
                }
                features_backward(s.of_q, s.q.at(b, n), C, n, &base[t * C], &p[t * C], f[t], &d_p[t * C], d_f,
                                  d_q + (b * s.q.count + n) * C, of_scale);
            }
        });
    });
    parts.add_up();
    turned = transposed(s, d_sums);
    in_chunks(s.batch, s.k.count, [&](int64_t b, int64_t first, int64_t last, int64_t chunk) {
        T* of_scale = scales.begin(of_queries + chunk);
        const auto base = scratch<T>(BLOCK * C);
        const auto p = scratch<T>(BLOCK * C);
        const auto d_p = scratch<T>(BLOCK * C);
        const auto f = scratch<T>(BLOCK);
        const int64_t* regions = s.key_regions ? s.key_regions + b * s.k.count : nullptr;
        in_blocks(regions, first, last, [&](int64_t region, int64_t from, int64_t to) {
            const int64_t group = b * s.regions + region;
            const T *d_products = d_sums + group * s.sums(), *d_z = d_products + s.products();
            T* values = d_v + (b * s.k.count + from) * O;
            std::fill(values, values + (to - from) * O, T(0));
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                f[t] = features(s.of_k, s.k.at(b, n), C, n, &base[t * C], &p[t * C]);
                std::copy(d_z, d_z + C, &d_p[t * C]);
            }
            for (int64_t h = 0; h < s.heads; h++) {
                add_product(to - from, V, F, &p[h * F], C, 1, d_products + h * F * V, V, values + h * V, O);
                add_product(to - from, F, V, s.v.at(b, from) + h * V, s.v.token_stride, 1,
                            &turned[group * s.products() + h * F * V], F, &d_p[h * F], C);
            }
            for (int64_t n = from, t = 0; n < to; n++, t++) {
                const T d_f = dot(&p[t * C], &d_p[t * C], C) / s.k.count, mean = f[t] / s.k.count;
                for (int64_t c = 0; c < O; c++) values[t * O + c] *= mean;
                for (int64_t c = 0; c < C; c++) d_p[t * C + c] *= mean;
                features_backward(s.of_k, s.k.at(b, n), C, n, &base[t * C], &p[t * C], f[t], &d_p[t * C], d_f,
                                  d_k + (b * s.k.count + n) * C, of_scale);
            }
        });
    });
    scales.add_up();
}

// The depthwise convolution of tokens on their grid, (B, height * width, C), with zeros around it.
template <typename T>
struct Convolution {
    int64_t batch, height, width, channels, kernel;
    int64_t weight_stride;   // between the weights of batch entries; 0 where they share one
    const int64_t* regions;  // (B, height * width), or null: taps that lie in another region count as zeros
    Tokens<const T> x;
};

constexpr int64_t ROWS = 8;  // of the grid, that one thread does at a time
constexpr int SPAN = 8;      // outputs side by side, whose inputs overlap

int64_t bands_of(int64_t height) { return (height + ROWS - 1) / ROWS; }

// Calls work(b, first, last, band) for bands of rows, each done by one thread.
template <typename T, typename Work>
void in_bands(const Convolution<T>& s, const Work& work) {
    const int64_t bands = bands_of(s.height);
#pragma omp parallel for schedule(static) if (s.batch * bands > 1)
    for (int64_t band = 0; band < s.batch * bands; band++) {
        const int64_t first = band % bands * ROWS;
        work(band / bands, first, std::min(first + ROWS, s.height), band);
    }
}

// Calls work(tap, n, m) for the taps of row y: output n reads input m.
template <typename T, typename Work>
void at_taps(const Convolution<T>& s, int64_t b, int64_t y, const Work& work) {
    const int64_t half = s.kernel / 2, *regions = s.regions ? s.regions + b * s.height * s.width : nullptr;
    for (int64_t x = 0; x < s.width; x++)
        for (int64_t i = std::max<int64_t>(0, half - y); i < std::min(s.kernel, s.height - y + half); i++)
            for (int64_t j = std::max<int64_t>(0, half - x); j < std::min(s.kernel, s.width - x + half); j++) {
                const int64_t n = y * s.width + x, m = n + (i - half) * s.width + j - half;
                if (!regions || regions[m] == regions[n]) work(i * s.kernel + j, n, m);
            }
}

// Calls taps(i, j, o, v) for SPAN outputs from x on and one vector of channels: output o reads v by tap (i, j).
template <int K, typename T, typename Row, typename Tap>
inline void at_span(const Convolution<T>& s, int64_t b, int64_t y, int64_t x, int64_t c, const Row& row,
                    const Tap& tap) {
    for (int64_t i = std::max<int64_t>(0, K / 2 - y); i < std::min<int64_t>(K, s.height - y + K / 2); i++) {
        row(i);
        const int64_t first = x - K / 2;
        const T* v = s.x.at(b, (y + i - K / 2) * s.width) + c;
#pragma GCC unroll 16
        for (int m = 0; m < SPAN + K - 1; m++)
            if (first + m >= 0 && first + m < s.width) {
                const auto input =
                    *reinterpret_cast<const typename Vector<T>::Type*>(v + (first + m) * s.x.token_stride);
#pragma GCC unroll 8
                for (int j = 0; j < K; j++)
                    if (m - j >= 0 && m - j < SPAN) tap(j, m - j, input);
            }
        row(-1 - i);
    }
}

// out (B, height * width, C) = bias (C) + the convolution of x with weight (kernel^2, C), or one for each entry.
template <int K, typename T>
int64_t convolve_vectors(const Convolution<T>& s, int64_t b, int64_t y, const T* weight, const T* bias, Tokens<T> out) {
    using Type = typename Vector<T>::Type;
    int64_t c = 0;
    for (; c + Vector<T>::WIDTH <= s.channels; c += Vector<T>::WIDTH)
        for (int64_t x = 0; x < s.width; x += SPAN) {
            Type sum[SPAN], w[K];
            for (int o = 0; o < SPAN; o++) sum[o] = *reinterpret_cast<const Type*>(bias + c);
            at_span<K>(
                s, b, y, x, c,
                [&](int64_t i) {
                    for (int j = 0; i >= 0 && j < K; j++)
                        w[j] = *reinterpret_cast<const Type*>(weight + (i * K + j) * s.channels + c);
                },
                [&](int j, int o, const Type& v) { sum[o] += w[j] * v; });
            for (int o = 0; o < SPAN && x + o < s.width; o++)
                *reinterpret_cast<Type*>(out.at(b, y * s.width + x + o) + c) = sum[o];
        }
    return c;
}

template <typename T>
void convolve_row(const Convolution<T>& s, int64_t b, int64_t y, const T* weight, const T* bias, Tokens<T> out) {
    int64_t done = 0;
    if (!s.regions && s.kernel == 3) done = convolve_vectors<3>(s, b, y, weight, bias, out);
    if (!s.regions && s.kernel == 5) done = convolve_vectors<5>(s, b, y, weight, bias, out);
    if (!s.regions && s.kernel == 7) done = convolve_vectors<7>(s, b, y, weight, bias, out);
    if (done == s.channels) return;
    for (int64_t x = 0; x < s.width; x++) std::copy(bias + done, bias + s.channels, out.at(b, y * s.width + x) + done);
    at_taps(s, b, y, [&](int64_t tap, int64_t n, int64_t m) {
        const T *v = s.x.at(b, m), *w = weight + tap * s.channels;
        T* o = out.at(b, n);
        for (int64_t c = done; c < s.channels; c++) o[c] += w[c] * v[c];
    });
}

template <typename T>
void convolve(const Convolution<T>& s, const T* weight, const T* bias, Tokens<T> out) {
    in_bands(s, [&](int64_t b, int64_t first, int64_t last, int64_t) {
        for (int64_t y = first; y < last; y++) convolve_row(s, b, y, weight + b * s.weight_stride, bias, out);
    });
}

// The gradient of the weight (kernel^2, C), or of one for each batch entry.
template <int K, typename T>
int64_t convolve_backward_vectors(const Convolution<T>& s, int64_t b, int64_t y, Tokens<const T> d_out, T* d_weight) {
    using Type = typename Vector<T>::Type;
    int64_t c = 0;
    for (; c + Vector<T>::WIDTH <= s.channels; c += Vector<T>::WIDTH)
        for (int64_t x = 0; x < s.width; x += SPAN) {
            Type g[SPAN] = {}, d[K];
            for (int o = 0; o < SPAN && x + o < s.width; o++)
                g[o] = *reinterpret_cast<const Type*>(d_out.at(b, y * s.width + x + o) + c);
            at_span<K>(
                s, b, y, x, c,
                [&](int64_t i) {
                    for (int j = 0; j < K; j++)
                        if (i >= 0)
                            d[j] = Type{};
                        else
                            *reinterpret_cast<Type*>(d_weight + ((-1 - i) * K + j) * s.channels + c) += d[j];
                },
                [&](int j, int o, const Type& v) { d[j] += g[o] * v; });
        }
    return c;
}

template <typename T>
void convolve_backward_row(const Convolution<T>& s, int64_t b, int64_t y, Tokens<const T> d_out, T* d_weight) {
    int64_t done = 0;
    if (!s.regions && s.kernel == 3) done = convolve_backward_vectors<3>(s, b, y, d_out, d_weight);
    if (!s.regions && s.kernel == 5) done = convolve_backward_vectors<5>(s, b, y, d_out, d_weight);
    if (!s.regions && s.kernel == 7) done = convolve_backward_vectors<7>(s, b, y, d_out, d_weight);
    if (done == s.channels) return;
    at_taps(s, b, y, [&](int64_t tap, int64_t n, int64_t m) {
        const T *g = d_out.at(b, n), *v = s.x.at(b, m);
        for (int64_t c = done; c < s.channels; c++) d_weight[tap * s.channels + c] += g[c] * v[c];
    });
}

template <typename T>
void convolve_backward(const Convolution<T>& s, Tokens<const T> d_out, T* d_weight) {
    const int64_t bands = bands_of(s.height), groups = s.weight_stride ? s.batch : 1;
    Parts<T> parts(groups, s.batch * bands / groups, s.kernel * s.kernel * s.channels, d_weight);
    in_bands(s, [&](int64_t b, int64_t first, int64_t last, int64_t band) {
        T* part = parts.begin(band);
        for (int64_t y = first; y < last; y++) convolve_backward_row(s, b, y, d_out, part);
    });
    parts.add_up();
}

}  // namespace

extern "C" {
void linear_forward_float32(const Problem<float>* s, const float* onto, float* sums, float* out) {
    forward(*s, onto, sums, out);
}
void linear_forward_float64(const Problem<double>* s, const double* onto, double* sums, double* out) {
    forward(*s, onto, sums, out);
}
void linear_backward_float32(const Problem<float>* s, const float* sums, const float* d_out, float* d_sums, float* d_q,
                             float* d_k, float* d_v, float* d_scale) {
    backward(*s, sums, d_out, d_sums, d_q, d_k, d_v, d_scale);
}
void linear_backward_float64(const Problem<double>* s, const double* sums, const double* d_out, double* d_sums,
                             double* d_q, double* d_k, double* d_v, double* d_scale) {
    backward(*s, sums, d_out, d_sums, d_q, d_k, d_v, d_scale);
}
void convolve_float32(const Convolution<float>* s, const float* weight, const float* bias, const Tokens<float>* out) {
    convolve(*s, weight, bias, *out);
}
void convolve_float64(const Convolution<double>* s, const double* weight, const double* bias,
                      const Tokens<double>* out) {
    convolve(*s, weight, bias, *out);
}
void convolve_backward_float32(const Convolution<float>* s, const Tokens<const float>* d_out, float* d_weight) {
    convolve_backward(*s, *d_out, d_weight);
}
void convolve_backward_float64(const Convolution<double>* s, const Tokens<const double>* d_out, double* d_weight) {
    convolve_backward(*s, *d_out, d_weight);
}
}
