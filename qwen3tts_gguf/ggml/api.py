"""The ggml functions we call: the C declaration above each prototype (ggml 0.25, llama-cpp-python 0.3.36)."""

from __future__ import annotations

from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_void_p,
)

from .library import cpu_function, function

MAX_DIMS = 4
STATUS_SUCCESS = 0
ROPE_TYPE_NEOX = 2
SORT_ORDER_DESC = 1
PREC_F32 = 10


# struct ggml_init_params { size_t mem_size; void * mem_buffer; bool no_alloc; };
class InitParams(Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


# struct ggml_tensor (ggml.h): sizes `ne` and byte strides `nb` run from the fastest dimension to the slowest
class TensorStruct(Structure):
    _fields_ = [
        ("type", c_int),
        ("buffer", c_void_p),
        ("ne", c_int64 * MAX_DIMS),
        ("nb", c_size_t * MAX_DIMS),
        ("op", c_int),
        ("op_params", c_int32 * 16),
        ("flags", c_int32),
        ("src", c_void_p * 10),
        ("view_src", c_void_p),
        ("view_offs", c_size_t),
        ("data", c_void_p),
        ("name", c_char * 64),
        ("extra", c_void_p),
        ("padding", c_char * 8),
    ]


# typedef void (*ggml_to_float_t)(const void * GGML_RESTRICT x, float * GGML_RESTRICT y, int64_t k);
ToFloat = CFUNCTYPE(None, c_void_p, c_void_p, c_int64)


# struct ggml_type_traits (ggml.h)
class TypeTraits(Structure):
    _fields_ = [
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", ToFloat),
        ("from_float_ref", c_void_p),
    ]


# typedef void (*ggml_custom_op_t)(struct ggml_tensor * dst , int ith, int nth, void * userdata);
CustomOp = CFUNCTYPE(None, c_void_p, c_int, c_int, c_void_p)

# -- contexts and tensors ----------------------------------------------------------------------------------------------

# struct ggml_context * ggml_init(struct ggml_init_params params);
init = function("ggml_init", c_void_p, InitParams)
# void ggml_free(struct ggml_context * ctx);
free = function("ggml_free", None, c_void_p)
# size_t ggml_tensor_overhead(void);
tensor_overhead = function("ggml_tensor_overhead", c_size_t)
# struct ggml_tensor * ggml_new_tensor(struct ggml_context * ctx, enum ggml_type type, int n_dims, const int64_t *ne);
new_tensor = function("ggml_new_tensor", c_void_p, c_void_p, c_int, c_int, c_void_p)
# void ggml_set_output(struct ggml_tensor * tensor);
set_output = function("ggml_set_output", None, c_void_p)

# -- views and layout --------------------------------------------------------------------------------------------------

# struct ggml_tensor * ggml_view_1d(struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, size_t offset);
view_1d = function("ggml_view_1d", c_void_p, c_void_p, c_void_p, c_int64, c_size_t)
# struct ggml_tensor * ggml_reshape_4d(struct ggml_context * ctx, struct ggml_tensor * a, int64_t ne0, int64_t ne1,
#     int64_t ne2, int64_t ne3);
reshape_4d = function("ggml_reshape_4d", c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int64)
# struct ggml_tensor * ggml_permute(struct ggml_context * ctx, struct ggml_tensor * a, int axis0, int axis1, int axis2,
#     int axis3);
permute = function("ggml_permute", c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_int)
# struct ggml_tensor * ggml_cont(struct ggml_context * ctx, struct ggml_tensor * a);
cont = function("ggml_cont", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_concat(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b, int dim);
concat = function("ggml_concat", c_void_p, c_void_p, c_void_p, c_void_p, c_int)
# struct ggml_tensor * ggml_cpy(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
cpy = function("ggml_cpy", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_pad_reflect_1d(struct ggml_context * ctx, struct ggml_tensor * a, int p0, int p1);
pad_reflect_1d = function("ggml_pad_reflect_1d", c_void_p, c_void_p, c_void_p, c_int, c_int)
# struct ggml_tensor * ggml_set_rows(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b,
#     struct ggml_tensor * c);
set_rows = function("ggml_set_rows", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p)

# -- arithmetic --------------------------------------------------------------------------------------------------------

# struct ggml_tensor * ggml_add(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
add = function("ggml_add", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sub(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
sub = function("ggml_sub", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_mul(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
mul = function("ggml_mul", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_scale_bias(struct ggml_context * ctx, struct ggml_tensor * a, float s, float b);
scale_bias = function("ggml_scale_bias", c_void_p, c_void_p, c_void_p, c_float, c_float)
# struct ggml_tensor * ggml_sqr(struct ggml_context * ctx, struct ggml_tensor * a);
sqr = function("ggml_sqr", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sqrt(struct ggml_context * ctx, struct ggml_tensor * a);
sqrt = function("ggml_sqrt", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sin(struct ggml_context * ctx, struct ggml_tensor * a);
sin = function("ggml_sin", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_floor(struct ggml_context * ctx, struct ggml_tensor * a);
floor = function("ggml_floor", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sum_rows(struct ggml_context * ctx, struct ggml_tensor * a);
sum_rows = function("ggml_sum_rows", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_mean(struct ggml_context * ctx, struct ggml_tensor * a);
mean = function("ggml_mean", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_clamp(struct ggml_context * ctx, struct ggml_tensor * a, float min, float max);
clamp = function("ggml_clamp", c_void_p, c_void_p, c_void_p, c_float, c_float)
# struct ggml_tensor * ggml_cumsum(struct ggml_context * ctx, struct ggml_tensor * a);
cumsum = function("ggml_cumsum", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_step(struct ggml_context * ctx, struct ggml_tensor * a);
step = function("ggml_step", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sgn(struct ggml_context * ctx, struct ggml_tensor * a);
sgn = function("ggml_sgn", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_log(struct ggml_context * ctx, struct ggml_tensor * a);
log = function("ggml_log", c_void_p, c_void_p, c_void_p)

# -- activations and norms ---------------------------------------------------------------------------------------------

# struct ggml_tensor * ggml_relu(struct ggml_context * ctx, struct ggml_tensor * a);
relu = function("ggml_relu", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_elu(struct ggml_context * ctx, struct ggml_tensor * a);
elu = function("ggml_elu", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_sigmoid(struct ggml_context * ctx, struct ggml_tensor * a);
sigmoid = function("ggml_sigmoid", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_tanh(struct ggml_context * ctx, struct ggml_tensor * a);
tanh = function("ggml_tanh", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_gelu_erf(struct ggml_context * ctx, struct ggml_tensor * a);
gelu_erf = function("ggml_gelu_erf", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_swiglu(struct ggml_context * ctx, struct ggml_tensor * a);
swiglu = function("ggml_swiglu", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_rms_norm(struct ggml_context * ctx, struct ggml_tensor * a, float eps);
rms_norm = function("ggml_rms_norm", c_void_p, c_void_p, c_void_p, c_float)
# struct ggml_tensor * ggml_norm(struct ggml_context * ctx, struct ggml_tensor * a, float eps);
norm = function("ggml_norm", c_void_p, c_void_p, c_void_p, c_float)
# struct ggml_tensor * ggml_soft_max(struct ggml_context * ctx, struct ggml_tensor * a);
soft_max = function("ggml_soft_max", c_void_p, c_void_p, c_void_p)

# -- networks ----------------------------------------------------------------------------------------------------------

# struct ggml_tensor * ggml_mul_mat(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
mul_mat = function("ggml_mul_mat", c_void_p, c_void_p, c_void_p, c_void_p)
# bool ggml_prec_set_acc(struct ggml_tensor * a, enum ggml_prec prec);
prec_set_acc = function("ggml_prec_set_acc", c_bool, c_void_p, c_int)
# struct ggml_tensor * ggml_out_prod(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
out_prod = function("ggml_out_prod", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_get_rows(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b);
get_rows = function("ggml_get_rows", c_void_p, c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_rope_ext(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * b,
#     struct ggml_tensor * c, int n_dims, int mode, int n_ctx_orig, float freq_base, float freq_scale,
#     float ext_factor, float attn_factor, float beta_fast, float beta_slow);
rope_ext = function(
    "ggml_rope_ext", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_int, c_int, c_int, c_float, c_float, c_float, c_float, c_float, c_float
)
# struct ggml_tensor * ggml_flash_attn_ext(struct ggml_context * ctx, struct ggml_tensor * q, struct ggml_tensor * k,
#     struct ggml_tensor * v, struct ggml_tensor * mask, float scale, float max_bias, float logit_softcap);
flash_attn_ext = function(
    "ggml_flash_attn_ext", c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_float, c_float
)
# struct ggml_tensor * ggml_soft_max_ext(struct ggml_context * ctx, struct ggml_tensor * a, struct ggml_tensor * mask,
#     float scale, float max_bias);
soft_max_ext = function("ggml_soft_max_ext", c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_float)
# struct ggml_tensor * ggml_argmax(struct ggml_context * ctx, struct ggml_tensor * a);
argmax = function("ggml_argmax", c_void_p, c_void_p, c_void_p)
# struct ggml_tensor * ggml_top_k(struct ggml_context * ctx, struct ggml_tensor * a, int k);
top_k = function("ggml_top_k", c_void_p, c_void_p, c_void_p, c_int)
# struct ggml_tensor * ggml_argsort(struct ggml_context * ctx, struct ggml_tensor * a, enum ggml_sort_order order);
argsort = function("ggml_argsort", c_void_p, c_void_p, c_void_p, c_int)
# struct ggml_tensor * ggml_custom_4d(struct ggml_context * ctx, enum ggml_type type, int64_t ne0, int64_t ne1,
#     int64_t ne2, int64_t ne3, struct ggml_tensor ** args, int n_args, ggml_custom_op_t fun, int n_tasks,
#     void * userdata);
custom_4d = function(
    "ggml_custom_4d", c_void_p, c_void_p, c_int, c_int64, c_int64, c_int64, c_int64, c_void_p, c_int, c_void_p, c_int, c_void_p
)

# const char * ggml_op_desc(const struct ggml_tensor * t);
op_desc = function("ggml_op_desc", c_char_p, c_void_p)

# -- graphs ------------------------------------------------------------------------------------------------------------

# struct ggml_cgraph * ggml_new_graph_custom(struct ggml_context * ctx, size_t size, bool grads);
new_graph_custom = function("ggml_new_graph_custom", c_void_p, c_void_p, c_size_t, c_bool)
# size_t ggml_graph_overhead_custom(size_t size, bool grads);
graph_overhead_custom = function("ggml_graph_overhead_custom", c_size_t, c_size_t, c_bool)
# int ggml_graph_n_nodes(struct ggml_cgraph * cgraph);
graph_n_nodes = function("ggml_graph_n_nodes", c_int, c_void_p)
# struct ggml_tensor * ggml_graph_node(struct ggml_cgraph * cgraph, int i);
graph_node = function("ggml_graph_node", c_void_p, c_void_p, c_int)
# void ggml_graph_add_node(struct ggml_cgraph * cgraph, struct ggml_tensor * tensor);
graph_add_node = function("ggml_graph_add_node", None, c_void_p, c_void_p)
# void ggml_build_forward_expand(struct ggml_cgraph * cgraph, struct ggml_tensor * tensor);
build_forward_expand = function("ggml_build_forward_expand", None, c_void_p, c_void_p)

# -- memory ------------------------------------------------------------------------------------------------------------

# ggml_backend_buffer_type_t ggml_backend_cpu_buffer_type(void);
backend_cpu_buffer_type = function("ggml_backend_cpu_buffer_type", c_void_p)
# ggml_backend_buffer_t ggml_backend_cpu_buffer_from_ptr(void * ptr, size_t size);
backend_cpu_buffer_from_ptr = function("ggml_backend_cpu_buffer_from_ptr", c_void_p, c_void_p, c_size_t)
# const char * ggml_backend_buft_name(ggml_backend_buffer_type_t buft);
backend_buft_name = function("ggml_backend_buft_name", c_char_p, c_void_p)
# ggml_backend_buffer_t ggml_backend_buft_alloc_buffer(ggml_backend_buffer_type_t buft, size_t size);
backend_buft_alloc_buffer = function("ggml_backend_buft_alloc_buffer", c_void_p, c_void_p, c_size_t)
# size_t ggml_backend_buft_get_alloc_size(ggml_backend_buffer_type_t buft, const struct ggml_tensor * tensor);
backend_buft_get_alloc_size = function("ggml_backend_buft_get_alloc_size", c_size_t, c_void_p, c_void_p)
# size_t ggml_backend_buft_get_alignment(ggml_backend_buffer_type_t buft);
backend_buft_get_alignment = function("ggml_backend_buft_get_alignment", c_size_t, c_void_p)
# void ggml_backend_buffer_clear(ggml_backend_buffer_t buffer, uint8_t value);
backend_buffer_clear = function("ggml_backend_buffer_clear", None, c_void_p, c_uint8)
# struct ggml_backend_buffer * ggml_backend_alloc_ctx_tensors_from_buft(struct ggml_context * ctx,
#     ggml_backend_buffer_type_t buft);
backend_alloc_ctx_tensors_from_buft = function("ggml_backend_alloc_ctx_tensors_from_buft", c_void_p, c_void_p, c_void_p)
# void * ggml_backend_buffer_get_base(ggml_backend_buffer_t buffer);
backend_buffer_get_base = function("ggml_backend_buffer_get_base", c_void_p, c_void_p)
# size_t ggml_backend_buffer_get_size(ggml_backend_buffer_t buffer);
backend_buffer_get_size = function("ggml_backend_buffer_get_size", c_size_t, c_void_p)
# void ggml_backend_buffer_free(ggml_backend_buffer_t buffer);
backend_buffer_free = function("ggml_backend_buffer_free", None, c_void_p)
# enum ggml_status ggml_backend_tensor_alloc(ggml_backend_buffer_t buffer, struct ggml_tensor * tensor, void * addr);
backend_tensor_alloc = function("ggml_backend_tensor_alloc", c_int, c_void_p, c_void_p, c_void_p)
# void ggml_backend_tensor_set(struct ggml_tensor * tensor, const void * data, size_t offset, size_t size);
backend_tensor_set = function("ggml_backend_tensor_set", None, c_void_p, c_void_p, c_size_t, c_size_t)
# void ggml_backend_tensor_get(const struct ggml_tensor * tensor, void * data, size_t offset, size_t size);
backend_tensor_get = function("ggml_backend_tensor_get", None, c_void_p, c_void_p, c_size_t, c_size_t)
# void ggml_backend_tensor_copy(const struct ggml_tensor * src, struct ggml_tensor * dst);
backend_tensor_copy = function("ggml_backend_tensor_copy", None, c_void_p, c_void_p)
# ggml_gallocr_t ggml_gallocr_new(ggml_backend_buffer_type_t buft);
gallocr_new = function("ggml_gallocr_new", c_void_p, c_void_p)
# bool ggml_gallocr_alloc_graph(ggml_gallocr_t galloc, struct ggml_cgraph * graph);
gallocr_alloc_graph = function("ggml_gallocr_alloc_graph", c_bool, c_void_p, c_void_p)
# void ggml_gallocr_free(ggml_gallocr_t galloc);
gallocr_free = function("ggml_gallocr_free", None, c_void_p)

# -- the CPU backend ---------------------------------------------------------------------------------------------------

# typedef void (*ggml_backend_set_n_threads_t)(ggml_backend_t backend, int n_threads);
SetThreads = CFUNCTYPE(None, c_void_p, c_int)
# typedef ggml_backend_buffer_type_t * (*ggml_backend_dev_get_extra_bufts_t)(ggml_backend_dev_t device);
GetExtraBufferTypes = CFUNCTYPE(POINTER(c_void_p), c_void_p)


# struct ggml_backend_feature { const char * name; const char * value; };
class Feature(Structure):
    _fields_ = [("name", c_char_p), ("value", c_char_p)]


# typedef struct ggml_backend_feature * (*ggml_backend_get_features_t)(ggml_backend_reg_t reg);
GetFeatures = CFUNCTYPE(POINTER(Feature), c_void_p)

# ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t device, const char * params);
backend_dev_init = function("ggml_backend_dev_init", c_void_p, c_void_p, c_char_p)
# void ggml_backend_free(ggml_backend_t backend);
backend_free = function("ggml_backend_free", None, c_void_p)
backend_set_n_threads = cpu_function("ggml_backend_set_n_threads", SetThreads)
dev_get_extra_bufts = cpu_function("ggml_backend_dev_get_extra_bufts", GetExtraBufferTypes)
get_features = cpu_function("ggml_backend_get_features", GetFeatures)
# enum ggml_status ggml_backend_graph_compute(ggml_backend_t backend, struct ggml_cgraph * cgraph);
backend_graph_compute = function("ggml_backend_graph_compute", c_int, c_void_p, c_void_p)
# size_t ggml_backend_dev_count(void);
backend_dev_count = function("ggml_backend_dev_count", c_size_t)
# ggml_backend_dev_t ggml_backend_dev_get(size_t index);
backend_dev_get = function("ggml_backend_dev_get", c_void_p, c_size_t)
# const char * ggml_backend_dev_name(ggml_backend_dev_t device);
backend_dev_name = function("ggml_backend_dev_name", c_char_p, c_void_p)
# const char * ggml_backend_dev_description(ggml_backend_dev_t device);
backend_dev_description = function("ggml_backend_dev_description", c_char_p, c_void_p)
# enum ggml_backend_dev_type ggml_backend_dev_type(ggml_backend_dev_t device);
backend_dev_type = function("ggml_backend_dev_type", c_int, c_void_p)
# void ggml_backend_dev_memory(ggml_backend_dev_t device, size_t * free, size_t * total);
backend_dev_memory = function("ggml_backend_dev_memory", None, c_void_p, c_void_p, c_void_p)
# ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t device);
backend_dev_buffer_type = function("ggml_backend_dev_buffer_type", c_void_p, c_void_p)
# bool ggml_backend_dev_supports_op(ggml_backend_dev_t device, const struct ggml_tensor * op);
backend_dev_supports_op = function("ggml_backend_dev_supports_op", c_bool, c_void_p, c_void_p)
# ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t device);
backend_dev_backend_reg = function("ggml_backend_dev_backend_reg", c_void_p, c_void_p)

# -- block types -------------------------------------------------------------------------------------------------------

# void ggml_cpu_fp32_to_fp16(const float *, ggml_fp16_t *, int64_t);
cpu_fp32_to_fp16 = function("ggml_cpu_fp32_to_fp16", None, c_void_p, c_void_p, c_int64)
# size_t ggml_quantize_chunk(enum ggml_type type, const float * src, void * dst, int64_t start, int64_t nrows,
#     int64_t n_per_row, const float * imatrix);
quantize_chunk = function(
    "ggml_quantize_chunk", c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p
)
# const struct ggml_type_traits * ggml_get_type_traits(enum ggml_type type);
get_type_traits = function("ggml_get_type_traits", c_void_p, c_int)
