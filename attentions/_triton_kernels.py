"""The kernels of _triton.py, in Triton: mathematics and names are those of _native.cpp.

A program does BT tokens of one entry, head by head. Channels of a head are padded to FB and VB, powers of two, with
zeros. Tensors are widened to WIDE when they are read, so all sums are in it; products of matrices are in PRECISION.
What several programs add up is written to `parts` by each and summed afterwards: nothing depends on their order. A
name keeps its type within a loop and before it, `_` too.

Shapes are as in _native.cpp, `parts` (programs, ...). B entries, H heads, F features and V values per head.
"""

import triton
import triton.language as tl

EPS = tl.constexpr(1e-6)  # as in _linear.py
RELU = tl.constexpr(1)  # as in _functions.py
FOCUSED = tl.constexpr(2)


@triton.jit
def _block(count, BT: tl.constexpr):
    """Return the entry of this program, and its tokens (BT), of which some may lie beyond the last one."""
    blocks = tl.cdiv(count, BT)
    return (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(0) % blocks * BT + tl.arange(0, BT)


@triton.jit
def _load(x, n, count, stride, h, F: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr):
    """Return the channels (BT, FB) of head h of tokens n; zeros beyond."""
    c = tl.arange(0, FB)[None, :]
    n = n[:, None]
    return tl.load(x + n * stride + h * F + c, mask=(n < count) & (c < F), other=0).to(WIDE)


@triton.jit
def _store(x, values, n, count, stride, h, F: tl.constexpr, FB: tl.constexpr):
    c = tl.arange(0, FB)[None, :]
    n = n[:, None]
    tl.store(x + n * stride + h * F + c, values, mask=(n < count) & (c < F))


@triton.jit
def _load_row(x, F: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr):
    c = tl.arange(0, FB)
    return tl.load(x + c, mask=c < F, other=0).to(WIDE)


@triton.jit
def _load_sums(sums, h, H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr):
    """Return KV (FB, VB) and Z (FB) of head h."""
    i, j = tl.arange(0, FB)[:, None], tl.arange(0, VB)[None, :]
    products = tl.load(sums + (h * F + i) * V + j, mask=(i < F) & (j < V), other=0)
    return products, _load_row(sums + H * F * V + h * F, F, FB, products.dtype)


@triton.jit
def _store_sums(parts, products, z, h, H: tl.constexpr, F: tl.constexpr, V: tl.constexpr):
    i, j = tl.arange(0, products.shape[0]), tl.arange(0, products.shape[1])
    parts += tl.program_id(0).to(tl.int64) * H * F * (V + 1)
    at = parts + (h * F + i[:, None]) * V + j[None, :]
    tl.store(at, products, mask=(i < F)[:, None] & (j < V)[None, :])
    tl.store(parts + H * F * V + h * F + i, z, mask=i < F)


@triton.jit
def _dot(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=a.dtype)


@triton.jit
def _raised(x, POWER: tl.constexpr):
    power = x
    for _ in tl.static_range(POWER - 1):
        power *= x
    return power


@triton.jit
def _base(
    x, inverse, encoding, n, count, stride, h,
    H: tl.constexpr, F: tl.constexpr, KIND: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return tokens (BT, FB) of head h, and what is raised to the power."""
    token = _load(x, n, count, stride, h, F, FB, WIDE)
    if encoding is not None:
        token += _load(encoding, n, count, H * F, h, F, FB, WIDE)
    base = token
    if KIND >= RELU:
        # A comparison keeps what is not a number.
        base = tl.where(token < 0, 0, token)
    if KIND == FOCUSED:
        base = (base + EPS) * _load_row(inverse + h * F, F, FB, WIDE)[None, :]
    return token, base


@triton.jit
def _lengths(
    x, inverse, encoding, n, count, stride,
    H: tl.constexpr, F: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    BT: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return, of each token, its largest channel, f, and the sum of p^2: all channels of all heads count."""
    most = tl.full((BT,), 0, WIDE)
    length, of_power = most, most
    if POWER == 1:
        return most + 1, most + 1, most + 1
    for h in range(H):
        _token, base = _base(x, inverse, encoding, n, count, stride, h, H, F, KIND, FB, WIDE)
        larger = tl.maximum(most, tl.max(base, 1))
        p, shrunk = _raised(base / larger[:, None], POWER), _raised(most / larger, POWER)
        of_power = of_power * shrunk * shrunk + tl.sum(p * p, 1)
        length += tl.sum(base * base, 1)
        most = larger
    return most, tl.sqrt(length / of_power), of_power


@triton.jit
def _features(
    x, inverse, encoding, n, count, stride, h, most,
    H: tl.constexpr, F: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Return tokens (BT, FB) of head h, their base and p: the features are f p."""
    token, base = _base(x, inverse, encoding, n, count, stride, h, H, F, KIND, FB, WIDE)
    p = base
    if POWER > 1:
        p = _raised(base / most[:, None], POWER)
    return token, base, p


@triton.jit
def _features_backward(
    token, base, p, f, of_power, d_p, d_f, inverse, d_x, d_inverse, n, count, h,
    H: tl.constexpr, F: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr, FB: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the tokens, and what they add to that of `inverse`; see `features_backward`."""
    d = d_p
    if POWER > 1:
        # The base is positive but in channels that are padded.
        of_base, of_p = d_f / (f * of_power), -d_f * f / of_power
        d = of_base[:, None] * base + (d_p + of_p[:, None] * p) * POWER * p / tl.where(base == 0, 1, base)
    if KIND == FOCUSED:
        c = tl.arange(0, FB)
        factor = _load_row(inverse + h * F, F, FB, WIDE)
        at = d_inverse + tl.program_id(0).to(tl.int64) * H * F + h * F + c
        tl.store(at, tl.sum(d * base, 0) / tl.where(c < F, factor, 1), mask=c < F)
        d *= factor[None, :]
    if KIND >= RELU:
        d = tl.where(token > 0, d, 0)
    _store(d_x, d, n, count, H * F, h, F, FB)


@triton.jit
def sums(
    k, v, inverse, encoding, parts, count, k_batch, k_token, v_batch, v_token,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    BT: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the sums over the keys of this program: KV before Z."""
    b, n = _block(count, BT)
    k, v = k + b * k_batch, v + b * v_batch
    most, f, _of_power = _lengths(k, inverse, encoding, n, count, k_token, H, F, KIND, POWER, BT, FB, WIDE)
    mean = tl.where(n < count, f / count, 0)
    for h in range(H):
        _token, _raw, p = _features(k, inverse, encoding, n, count, k_token, h, most, H, F, KIND, POWER, FB, WIDE)
        p *= mean[:, None]
        products = _dot(tl.trans(p), _load(v, n, count, v_token, h, V, VB, WIDE), PRECISION)
        _store_sums(parts, products, tl.sum(p, 0), h, H, F, V)


@triton.jit
def outputs(
    q, inverse, sums, onto, out, count, q_batch, q_token,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    NORMALISED: tl.constexpr,
    BT: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    b, n = _block(count, BT)
    q, sums, first = q + b * q_batch, sums + b * H * F * (V + 1), b * count * H * V
    most, f, _of_power = _lengths(q, inverse, None, n, count, q_token, H, F, KIND, POWER, BT, FB, WIDE)
    for h in range(H):
        _token, _raw, p = _features(q, inverse, None, n, count, q_token, h, most, H, F, KIND, POWER, FB, WIDE)
        products, z = _load_sums(sums, h, H, F, V, FB, VB)
        if NORMALISED:
            p /= (tl.sum(p * z[None, :], 1) + EPS / f)[:, None]
        else:
            p *= f[:, None]
        y = _dot(p, products, PRECISION)
        if onto is not None:
            y += _load(onto + first, n, count, H * V, h, V, VB, WIDE)
        _store(out + first, y, n, count, H * V, h, V, VB)


@triton.jit
def _query_backward(
    q, inverse, sums, gradient, n, count, q_token, h, most, f,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    NORMALISED: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return queries, base and p of head h, the gradients of KV, of p and f, and that of what is divided by."""
    token, base, p = _features(q, inverse, None, n, count, q_token, h, most, H, F, KIND, POWER, FB, WIDE)
    products, z = _load_sums(sums, h, H, F, V, FB, VB)
    factor = f
    if NORMALISED:
        factor = 1 / (tl.sum(p * z[None, :], 1) + EPS / f)
    weighted = _load(gradient, n, count, H * V, h, V, VB, WIDE) * factor[:, None]
    d_p = _dot(weighted, tl.trans(products), PRECISION)
    d_f = tl.sum(p * d_p, 1)
    d_normaliser = tl.zeros_like(f)
    if NORMALISED:
        d_normaliser = -d_f * factor
        d_p += d_normaliser[:, None] * z[None, :]
        d_f = -d_normaliser * EPS / (f * f)
    else:
        d_f /= f
    return token, base, p, weighted, d_p, d_f, d_normaliser


@triton.jit
def queries_backward(
    q, inverse, sums, gradient, d_q, parts, d_inverse, count, q_batch, q_token,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    NORMALISED: tl.constexpr,
    BT: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the queries, and what they add to those of the sums and of `inverse`."""
    b, n = _block(count, BT)
    q, sums, d_q = q + b * q_batch, sums + b * H * F * (V + 1), d_q + b * count * H * F
    gradient += b * count * H * V
    most, f, of_power = _lengths(q, inverse, None, n, count, q_token, H, F, KIND, POWER, BT, FB, WIDE)
    d_f = tl.zeros_like(f)
    for h in range(H):
        token, base, p, weighted, d_p, of_f, d_normaliser = _query_backward(
            q, inverse, sums, gradient, n, count, q_token, h, most, f,
            H, F, V, KIND, POWER, NORMALISED, FB, VB, WIDE, PRECISION,
        )  # fmt: skip
        d_f += of_f
        _store_sums(parts, _dot(tl.trans(p), weighted, PRECISION), tl.sum(d_normaliser[:, None] * p, 0), h, H, F, V)
        if POWER == 1:
            _features_backward(
                token, base, p, f, of_power, d_p, d_f, inverse, d_q, d_inverse, n, count, h,
                H, F, KIND, POWER, FB, WIDE,
            )  # fmt: skip
    # f is of all heads, so its gradient is known only now: what depends on it is computed again.
    if POWER > 1:
        for h in range(H):
            token, base, p, weighted, d_p, of_f, d_normaliser = _query_backward(
                q, inverse, sums, gradient, n, count, q_token, h, most, f,
                H, F, V, KIND, POWER, NORMALISED, FB, VB, WIDE, PRECISION,
            )  # fmt: skip
            _features_backward(
                token, base, p, f, of_power, d_p, d_f, inverse, d_q, d_inverse, n, count, h,
                H, F, KIND, POWER, FB, WIDE,
            )  # fmt: skip


@triton.jit
def _key_backward(
    k, v, inverse, encoding, d_sums, n, count, k_token, v_token, h, most,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return keys, base and p of head h, the gradient of KV, and that of the features."""
    token, base, p = _features(k, inverse, encoding, n, count, k_token, h, most, H, F, KIND, POWER, FB, WIDE)
    d_products, d_z = _load_sums(d_sums, h, H, F, V, FB, VB)
    d_phi = _dot(_load(v, n, count, v_token, h, V, VB, WIDE), tl.trans(d_products), PRECISION) + d_z[None, :]
    return token, base, p, d_products, tl.where((n < count)[:, None], d_phi / count, 0)


@triton.jit
def keys_backward(
    k, v, inverse, encoding, d_sums, d_k, d_v, d_inverse, count, k_batch, k_token, v_batch, v_token,
    H: tl.constexpr, F: tl.constexpr, V: tl.constexpr, KIND: tl.constexpr, POWER: tl.constexpr,
    BT: tl.constexpr, FB: tl.constexpr, VB: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of keys and values, and what the keys add to that of `inverse`."""
    b, n = _block(count, BT)
    k, v, d_sums = k + b * k_batch, v + b * v_batch, d_sums + b * H * F * (V + 1)
    d_k, d_v = d_k + b * count * H * F, d_v + b * count * H * V
    most, f, of_power = _lengths(k, inverse, encoding, n, count, k_token, H, F, KIND, POWER, BT, FB, WIDE)
    d_f = tl.zeros_like(f)
    for h in range(H):
        token, base, p, d_products, d_phi = _key_backward(
            k, v, inverse, encoding, d_sums, n, count, k_token, v_token, h, most,
            H, F, V, KIND, POWER, FB, VB, WIDE, PRECISION,
        )  # fmt: skip
        d_f += tl.sum(p * d_phi, 1)
        _store(d_v, _dot(p * (f / count)[:, None], d_products, PRECISION), n, count, H * V, h, V, VB)
        if POWER == 1:
            _features_backward(
                token, base, p, f, of_power, d_phi, d_f, inverse, d_k, d_inverse, n, count, h,
                H, F, KIND, POWER, FB, WIDE,
            )  # fmt: skip
    if POWER > 1:
        for h in range(H):
            token, base, p, d_products, d_phi = _key_backward(
                k, v, inverse, encoding, d_sums, n, count, k_token, v_token, h, most,
                H, F, V, KIND, POWER, FB, VB, WIDE, PRECISION,
            )  # fmt: skip
            _features_backward(
                token, base, p, f, of_power, d_phi * f[:, None], d_f, inverse, d_k, d_inverse, n, count, h,
                H, F, KIND, POWER, FB, WIDE,
            )  # fmt: skip


@triton.jit
def _tap(x, n, height, width, stride, tap, c, C, K: tl.constexpr, WIDE: tl.constexpr):
    """Return what tokens n (BT) of the grid read by a tap, in channels c: (BT, BC)."""
    row, column = n // width + tap // K - K // 2, n % width + tap % K - K // 2
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (n < height * width)
    at = x + (row * width + column)[:, None] * stride + c[None, :]
    return tl.load(at, mask=inside[:, None] & (c < C)[None, :], other=0).to(WIDE)


@triton.jit
def convolve(
    x, taps, bias, out, height, width, x_batch, x_token, taps_batch, C,
    K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    b, n = _block(height * width, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    x, taps, out = x + b * x_batch, taps + b * taps_batch, out + b * height * width * C
    y = tl.full((BT, BC), 0, WIDE) + tl.load(bias + c, mask=c < C, other=0).to(WIDE)[None, :]
    for tap in range(K * K):
        weight = tl.load(taps + tap * C + c, mask=c < C, other=0).to(WIDE)
        y += _tap(x, n, height, width, x_token, tap, c, C, K, WIDE) * weight[None, :]
    mask = (n < height * width)[:, None] & (c < C)[None, :]
    tl.store(out + n[:, None] * C + c[None, :], y, mask=mask)


@triton.jit
def convolve_backward(
    x, gradient, parts, height, width, x_batch, x_token, C,
    K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Write what the tokens of this program add to the gradient of the taps."""
    b, n = _block(height * width, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    x, gradient = x + b * x_batch, gradient + b * height * width * C
    mask = (n < height * width)[:, None] & (c < C)[None, :]
    g = tl.load(gradient + n[:, None] * C + c[None, :], mask=mask, other=0).to(WIDE)
    parts += tl.program_id(0).to(tl.int64) * K * K * C
    for tap in range(K * K):
        of_tap = tl.sum(g * _tap(x, n, height, width, x_token, tap, c, C, K, WIDE), 0)
        tl.store(parts + tap * C + c, of_tap, mask=c < C)
