"""The operators that multiply no matrices: both counters pass them by."""

GROUPS: dict[str, tuple[str, ...]] = {
    "elementwise": (
        "abs absolute add addcdiv addcmul bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min"
        " clip cos div divide elu eq erf exp exp2 expm1 floor floor_divide fmod ge gelu gt hardsigmoid hardswish"
        " hardtanh isfinite isinf isnan le leaky_relu lerp log log1p log2 log_sigmoid"
        " log_sigmoid_forward logical_and logical_not logical_or lt masked_fill maximum minimum mish mul multiply"
        " nan_to_num ne neg negative pow reciprocal relu relu6 remainder round rsqrt rsub selu sigmoid sign silu"
        " sin softplus sqrt square sub subtract tanh threshold true_divide where __and__ __or__",
        # less common
        "acos acosh arccos arcsin arctan arctan2 asin asinh atan atan2 atanh bitwise_xor copysign cosh deg2rad"
        " digamma erfc erfinv fix float_power fmax fmin frac glu greater greater_equal hardshrink heaviside hypot"
        " isclose isneginf isposinf less less_equal lgamma log10 logaddexp logaddexp2 logical_xor logit not_equal"
        " positive prelu _prelu_kernel rad2deg rrelu sgn signbit sinc sinh softshrink special_expit special_logit"
        " special_sinc special_xlogy tan trunc xlogy cumulative_trapezoid frexp i0 ldexp nextafter pairwise_distance"
        " renorm special_erfcx special_i0e special_ndtr trapezoid _weight_norm _weight_norm_interface",
        # products of which nothing is summed
        "addr cross ger kron linalg_cross outer",
        # parts of complex numbers, order of frequencies
        "angle complex conj conj_physical _conj _conj_physical imag is_complex _neg_view polar real view_as_complex"
        " view_as_real fft_fftshift fft_ifftshift fft_fftfreq fft_rfftfreq",
    ),
    "reductions": (
        "all amax amin any argmax argmin cumsum linalg_vector_norm logsumexp max mean min norm prod"
        " sort std std_mean sum topk var var_mean",
        # less common
        "aminmax argsort bincount bucketize count_nonzero cummax cummin cumprod diff dist frobenius_norm histc isin"
        " kthvalue linalg_matrix_norm linalg_norm logcumsumexp median mode msort nanmean nanmedian nansum nonzero"
        " one_hot quantile searchsorted trace unique_dim",
    ),
    "softmax": ("_log_softmax _safe_softmax _softmax log_softmax softmax special_log_softmax special_softmax",),
    # Counted apart, see `Macs.norms`.
    "norms": (
        "_batch_norm_no_update _fused_rms_norm _native_batch_norm_legit_no_training batch_norm"
        " cudnn_batch_norm group_norm layer_norm native_batch_norm native_group_norm native_layer_norm"
        " rms_norm",
    ),
    # Views and conversions too.
    "copies": (
        "_reshape_alias _to_copy _unsafe_view alias as_strided broadcast_to cat chunk clone col2im"
        " concat constant_pad_nd contiguous copy detach diagonal expand expand_as fill flatten flip"
        " gather im2col index index_put index_select lift_fresh mH mT moveaxis movedim narrow numpy_T pad permute"
        " pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d repeat repeat_interleave"
        " replication_pad1d replication_pad2d reshape resolve_conj resolve_neg roll scatter select slice"
        " split split_with_sizes squeeze stack swapaxes swapdims t take tile to transpose tril triu type_as"
        " unbind unflatten unfold unsqueeze view view_as zero",
        # less common
        "adjoint affine_grid_generator as_strided_scatter atleast_1d atleast_2d atleast_3d block_diag cartesian_prod"
        " channel_shuffle column_stack concatenate diag diag_embed diagonal_copy diagonal_scatter dsplit dstack"
        " embedding expand_copy fliplr flipud hsplit hstack index_add index_copy index_fill lift lift_fresh_copy"
        " linalg_diagonal masked_scatter masked_select matrix_H meshgrid native_channel_shuffle _pad_circular"
        " _pad_enum permute_copy ravel reflection_pad3d replication_pad3d rot90 row_stack scatter_add scatter_reduce"
        " select_scatter slice_scatter split_copy split_with_sizes_copy squeeze_copy take_along_dim tensor_split"
        " unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes vsplit vstack",
    ),
    # Dropout and sizes too.
    "new tensors": (
        "arange empty empty_like empty_strided eye full full_like linspace new_empty new_empty_strided"
        " new_full new_ones new_zeros ones ones_like rand rand_like randn randn_like scalar_tensor zeros"
        " zeros_like bernoulli dropout feature_dropout native_dropout promote_types size numel Int ScalarImplicit",
        # less common
        "alpha_dropout bartlett_window blackman_window exponential feature_alpha_dropout hamming_window hann_window"
        " logspace multinomial normal normal_functional randint randint_like randperm tril_indices triu_indices"
        " uniform",
    ),
    # Interpolation too.
    "pooling": (
        "upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d"
        " grid_sampler grid_sampler_2d _adaptive_avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d"
        " adaptive_max_pool2d avg_pool1d avg_pool2d max_pool2d max_pool2d_with_indices",
        # less common
        "adaptive_avg_pool3d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool3d avg_pool3d"
        " fractional_max_pool2d grid_sampler_3d max_pool1d max_pool1d_with_indices max_pool3d max_pool3d_with_indices"
        " max_unpool2d upsample_nearest3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d"
        " _upsample_nearest_exact2d _upsample_nearest_exact3d upsample_trilinear3d",
    ),
}
"""By what they do, names without the underscore of the in-place form."""

FREE = frozenset(f"aten::{name}" for group in GROUPS.values() for text in group for name in text.split())
"""Operators without matrix products, by name without the underscore of the in-place form."""


def is_free(name: str) -> bool:
    """Return whether an operator is free; the in-place form of a free one is free as well."""
    return name in FREE or name.removesuffix("_") in FREE
