// The core's arithmetic and codecs on vectors at addresses, for the methods' steps.
//
// Threads: Python's; the interpreter lock is released while a kernel runs.
#include <pybind11/stl.h>

#include "atoll/base/limits.h"
#include "atoll/codec/codec.h"
#include "atoll/kernels/kernels.h"
#include "binding/convert.h"

namespace reef::binding {

namespace {

std::span<float> floats(std::uintptr_t address, std::uint64_t count) {
  const std::span<std::byte> bytes = vector_memory(address, count);
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

void nesterov(std::uintptr_t theta_out, std::uintptr_t momentum_out, std::uintptr_t theta,
              std::uintptr_t momentum, std::uintptr_t total, std::uint64_t count,
              float inverse_weight, float eta, float mu) {
  const auto new_theta = floats(theta_out, count);
  const auto new_momentum = floats(momentum_out, count);
  const auto old_theta = floats(theta, count);
  const auto old_momentum = floats(momentum, count);
  const auto sum = floats(total, count);
  const py::gil_scoped_release unlocked;
  nesterov_step(new_theta, new_momentum, old_theta, old_momentum, sum, inverse_weight, eta, mu);
}

void descend_along(std::uintptr_t theta_out, std::uintptr_t theta, std::uintptr_t total,
                   std::uint64_t count, float inverse_weight, float alpha) {
  const auto new_theta = floats(theta_out, count);
  const auto old_theta = floats(theta, count);
  const auto sum = floats(total, count);
  const py::gil_scoped_release unlocked;
  descend(new_theta, old_theta, sum, inverse_weight, alpha);
}

void scatter(std::uintptr_t acc, std::uint64_t count, std::uintptr_t positions,
             std::uintptr_t values, std::uint64_t entries, float factor) {
  const auto to = floats(acc, count);
  const std::span<std::byte> bytes = vector_memory(positions, entries, DType::i64);
  const std::span<const std::int64_t> at{reinterpret_cast<const std::int64_t*>(bytes.data()),
                                         bytes.size() / sizeof(std::int64_t)};
  const auto added = floats(values, entries);
  bool inside = false;
  {
    const py::gil_scoped_release unlocked;
    inside = scatter_add(to, at, added, factor);
  }
  if (!inside) {
    throw invalid("a position is not in [0, " + std::to_string(count) + "); nothing was added");
  }
}

std::uint64_t bytes_of(const std::string& codec, std::uint64_t count) {
  if (count > limits::kMaxVectorBytes / sizeof(float)) {
    throw invalid("a vector of " + std::to_string(count) + " elements is too long");
  }
  return encoded_bytes(to_codec(codec), count);
}

std::pair<std::uint64_t, std::uint64_t> encode_vector(const std::string& codec,
                                                      std::uintptr_t source, std::uint64_t count,
                                                      std::uintptr_t target,
                                                      const std::string& rounding,
                                                      std::uint64_t seed) {
  const Codec how{to_codec(codec), to_rounding(rounding), seed};
  const auto in = floats(source, count);
  const auto out = memory(target, bytes_of(codec, count));
  const py::gil_scoped_release unlocked;
  const EncodeReport report = encode(how, in, out);
  return {report.non_finite, report.saturated};
}

void decode_vector(const std::string& codec, std::uintptr_t source, std::uint64_t count,
                   std::uintptr_t target) {
  const CodecId id = to_codec(codec);
  const auto in = memory(source, bytes_of(codec, count));
  const auto out = floats(target, count);
  const py::gil_scoped_release unlocked;
  decode(id, in, out);
}

void decode_add_vector(const std::string& codec, std::uintptr_t source, std::uint64_t count,
                       std::uintptr_t acc) {
  const CodecId id = to_codec(codec);
  const auto in = memory(source, bytes_of(codec, count));
  const auto out = floats(acc, count);
  const py::gil_scoped_release unlocked;
  decode_add(id, in, out);
}

}  // namespace

void define_kernels(py::module_& module) {
  module.def("nesterov_step", &nesterov, py::arg("theta_out"), py::arg("momentum_out"),
             py::arg("theta"), py::arg("momentum"), py::arg("total"), py::arg("count"),
             py::arg("inverse_weight"), py::arg("eta"), py::arg("mu"));
  module.def("descend", &descend_along, py::arg("theta_out"), py::arg("theta"), py::arg("total"),
             py::arg("count"), py::arg("inverse_weight"), py::arg("alpha"));
  module.def("scatter_add", &scatter, py::arg("acc"), py::arg("count"), py::arg("positions"),
             py::arg("values"), py::arg("entries"), py::arg("factor"));
  module.def("encoded_bytes", &bytes_of, py::arg("codec"), py::arg("count"));
  module.def("encode", &encode_vector, py::arg("codec"), py::arg("source"), py::arg("count"),
             py::arg("target"), py::kw_only(), py::arg("rounding") = "nearest",
             py::arg("seed") = 0);
  module.def("decode", &decode_vector, py::arg("codec"), py::arg("source"), py::arg("count"),
             py::arg("target"));
  module.def("decode_add", &decode_add_vector, py::arg("codec"), py::arg("source"),
             py::arg("count"), py::arg("acc"));
}

}  // namespace reef::binding
