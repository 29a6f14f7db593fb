#include "binding/convert.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "atoll/base/limits.h"

namespace reef::binding {

namespace {

template <std::size_t N>
std::array<std::uint8_t, N> to_array(const py::bytes& bytes, const char* name) {
  const std::string_view view = bytes;
  if (view.size() != N) {
    throw invalid(std::string(name) + " must be " + std::to_string(N) + " bytes, got " +
                  std::to_string(view.size()));
  }
  std::array<std::uint8_t, N> array;
  std::copy(view.begin(), view.end(), array.begin());
  return array;
}

}  // namespace

CoreFailure invalid(std::string message) {
  return CoreFailure{Error{Code::invalid, 0, std::move(message)}};
}

PeerId to_peer(const py::bytes& bytes) { return PeerId{to_array<16>(bytes, "peer id")}; }

std::array<std::uint8_t, 32> to_secret(const py::bytes& bytes) {
  return to_array<32>(bytes, "secret");
}

py::bytes from_peer(const PeerId& peer) {
  return {reinterpret_cast<const char*>(peer.bytes.data()), peer.bytes.size()};
}

Change to_change(const std::string& kind) {
  if (kind == "drain") {
    return Change::drain;
  }
  if (kind == "abort") {
    return Change::abort;
  }
  throw invalid("kind must be \"drain\" or \"abort\", got \"" + kind + "\"");
}

Plan to_plan(const std::string& plan) {
  if (plan == "auto") {
    return Plan::none;
  }
  if (plan == "ring") {
    return Plan::ring;
  }
  if (plan == "direct") {
    return Plan::direct;
  }
  throw invalid("plan must be \"auto\", \"ring\" or \"direct\", got \"" + plan + "\"");
}

Nanos to_nanos(double seconds, const char* name) {
  constexpr double kLongest = 1e9;  // some thirty years: far from the end of the clock
  if (!std::isfinite(seconds) || seconds <= 0 || seconds > kLongest) {
    throw invalid(std::string(name) + " must be a positive number of seconds");
  }
  return std::max<Nanos>(1, static_cast<Nanos>(seconds * static_cast<double>(kSecond)));
}

Nanos to_deadline(Nanos timeout) {
  const Nanos now = monotonic_now();
  return timeout >= kNever - now ? kNever : now + timeout;
}

std::span<std::byte> memory(std::uintptr_t address, std::uint64_t bytes) {
  if (bytes == 0) {
    return {};
  }
  if (address == 0) {
    throw invalid("the address of " + std::to_string(bytes) + " bytes must not be 0");
  }
  if (bytes > UINTPTR_MAX - address) {
    throw invalid("an address plus " + std::to_string(bytes) + " bytes is beyond the end of memory");
  }
  return {reinterpret_cast<std::byte*>(address), static_cast<std::size_t>(bytes)};
}

std::span<std::byte> vector_memory(std::uintptr_t address, std::uint64_t count) {
  if (count > limits::kMaxVectorBytes / sizeof(float)) {
    throw invalid("a vector of " + std::to_string(count) + " elements is too long");
  }
  if (address % alignof(float) != 0) {
    throw invalid("a vector of fp32 must begin at a multiple of 4 bytes");
  }
  return memory(address, count * sizeof(float));
}

}  // namespace reef::binding
