#include "binding/convert.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>
#include <utility>

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

// The value with this name; a refusal lists them all.
template <typename T>
T named(const char* what, const std::string& name,
        std::initializer_list<std::pair<const char*, T>> values) {
  std::string known;
  for (const auto& [each, value] : values) {
    if (name == each) {
      return value;
    }
    known += (known.empty() ? "" : ", ") + std::string(each);
  }
  throw invalid(std::string(what) + " must be one of " + known + ", got \"" + name + "\"");
}

}  // namespace

CoreFailure invalid(std::string message) {
  return CoreFailure{Error{Code::invalid, 0, std::move(message)}};
}

PeerId to_peer(const py::bytes& bytes) { return PeerId{to_array<16>(bytes, "peer id")}; }

std::array<std::uint8_t, 32> to_secret(const py::bytes& bytes) {
  return to_array<32>(bytes, "secret");
}

std::array<std::uint8_t, 32> to_ticket(const py::bytes& bytes) {
  return to_array<32>(bytes, "ticket");
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

Plan to_plan(const std::string& name) {
  return named<Plan>("plan", name,
                     {{"auto", Plan::none},
                      {"ring", Plan::ring},
                      {"direct", Plan::direct},
                      {"doubling", Plan::doubling},
                      {"mesh", Plan::mesh},
                      {"grouped", Plan::grouped}});
}

DType to_dtype(const std::string& name) {
  return named<DType>("dtype", name,
                      {{"float32", DType::f32},
                       {"float64", DType::f64},
                       {"float16", DType::f16},
                       {"bfloat16", DType::bf16},
                       {"int8", DType::i8},
                       {"uint8", DType::u8},
                       {"int32", DType::i32},
                       {"int64", DType::i64}});
}

Reduction to_reduction(const std::string& name) {
  return named<Reduction>("reduction", name,
                          {{"sum", Reduction::sum},
                           {"avg", Reduction::avg},
                           {"min", Reduction::min},
                           {"max", Reduction::max},
                           {"product", Reduction::product}});
}

Rounding to_rounding(const std::string& name) {
  return named<Rounding>("rounding", name,
                         {{"nearest", Rounding::nearest}, {"stochastic", Rounding::stochastic}});
}

CodecId to_codec(const std::string& name) {
  // Python's names are words: int8_minmax, two_bit.
  std::string plain = name == "two_bit" ? "2bit" : name;
  std::replace(plain.begin(), plain.end(), '_', '-');
  if (const auto codec = codec_named(plain)) {
    return *codec;
  }
  throw invalid("codec \"" + name + "\" is not known");
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

std::span<std::byte> vector_memory(std::uintptr_t address, std::uint64_t count, DType dtype) {
  const std::size_t width = dtype_bytes(dtype);
  if (count > limits::kMaxVectorBytes / width) {
    throw invalid("a vector of " + std::to_string(count) + " elements is too long");
  }
  if (address % width != 0) {
    throw invalid("a vector of such elements must begin at a multiple of " +
                  std::to_string(width) + " bytes");
  }
  return memory(address, count * width);
}

}  // namespace reef::binding
