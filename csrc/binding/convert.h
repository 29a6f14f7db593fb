// Between Python's values and the core's. With the interpreter lock held.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "atoll/collective/view.h"
#include "atoll/engine/engine.h"
#include "atoll/topology/topology.h"

namespace reef::binding {

namespace py = pybind11;

// What every refusal becomes; translated to atoll._core.CoreError.
struct CoreFailure {
  Error error;
};

template <typename T>
T take_or_throw(Result<T> result) {
  if (!result) {
    throw CoreFailure{result.error()};
  }
  return std::move(result.value());
}

[[nodiscard]] CoreFailure invalid(std::string message);
[[nodiscard]] PeerId to_peer(const py::bytes& bytes);
[[nodiscard]] std::array<std::uint8_t, 32> to_secret(const py::bytes& bytes);
[[nodiscard]] std::array<std::uint8_t, 32> to_ticket(const py::bytes& bytes);
[[nodiscard]] Change to_change(const std::string& kind);
[[nodiscard]] Plan to_plan(const std::string& name);
[[nodiscard]] DType to_dtype(const std::string& name);
[[nodiscard]] Reduction to_reduction(const std::string& name);
[[nodiscard]] Rounding to_rounding(const std::string& name);
[[nodiscard]] CodecId to_codec(const std::string& name);
[[nodiscard]] Nanos to_nanos(double seconds, const char* name);
[[nodiscard]] Nanos to_deadline(Nanos timeout);
// Null for no bytes. Refuses bytes that are no topology of so many members. Releases the interpreter
// lock while it computes.
[[nodiscard]] std::shared_ptr<const Topology> to_topology(const py::bytes& bytes, Rank members);
[[nodiscard]] py::bytes from_peer(const PeerId& peer);

// The memory at an address that the caller vouches for.
[[nodiscard]] std::span<std::byte> memory(std::uintptr_t address, std::uint64_t bytes);
[[nodiscard]] std::span<std::byte> vector_memory(std::uintptr_t address, std::uint64_t count,
                                                 DType dtype = DType::f32);

void define_exception(py::module_& module);
void define_values(py::module_& module);
void define_engine(py::module_& module);
void define_topology(py::module_& module);
void define_kernels(py::module_& module);

}  // namespace reef::binding
