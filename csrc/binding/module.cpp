// The extension module atoll._core; runtime/atoll/_core.pyi says what it holds.
//
// Threads: Python's. Every call that may wait releases the interpreter lock; no thread of the core
// ever takes it. Only here are errors exceptions.
#include <pybind11/pybind11.h>

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

}  // namespace

}  // namespace reef::binding

PYBIND11_MODULE(_core, module) {
  namespace py = pybind11;
  module.doc() = "The native core: links, collectives, state transfer.";
  reef::binding::define_exception(module);
  reef::binding::define_values(module);
  reef::binding::define_engine(module);
  module.def("nesterov_step", &reef::binding::nesterov, py::arg("theta_out"),
             py::arg("momentum_out"), py::arg("theta"), py::arg("momentum"), py::arg("total"),
             py::arg("count"), py::arg("inverse_weight"), py::arg("eta"), py::arg("mu"));
}
