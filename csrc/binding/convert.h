// Between Python's values and the core's. With the interpreter lock held.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <span>
#include <string>

#include "atoll/collective/view.h"
#include "atoll/engine/engine.h"

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
[[nodiscard]] Change to_change(const std::string& kind);
[[nodiscard]] Plan to_plan(const std::string& plan);
[[nodiscard]] Nanos to_nanos(double seconds, const char* name);
[[nodiscard]] Nanos to_deadline(Nanos timeout);
[[nodiscard]] py::bytes from_peer(const PeerId& peer);

// The memory at an address that the caller vouches for.
[[nodiscard]] std::span<std::byte> memory(std::uintptr_t address, std::uint64_t bytes);
[[nodiscard]] std::span<std::byte> vector_memory(std::uintptr_t address, std::uint64_t count);

void define_exception(py::module_& module);
void define_values(py::module_& module);
void define_engine(py::module_& module);

}  // namespace reef::binding
