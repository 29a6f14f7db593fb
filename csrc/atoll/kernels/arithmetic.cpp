#include "atoll/kernels/arithmetic.h"

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "atoll/base/result.h"
#include "atoll/kernels/half.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Plain loops that compilers turn into vector code. A vector operation rounds each lane as the scalar
// one does, so the width of the machine changes no bit.

namespace reef {

namespace {

// A 16-bit float as it lies in memory, computed with as fp32.
struct Bf16 {
  using Wide = float;
  std::uint16_t bits;
  static float widen(Bf16 x) { return kernels::bf16_to_float(x.bits); }
  static Bf16 narrow(float x) { return {kernels::float_to_bf16(x)}; }
};
struct Fp16 {
  using Wide = float;
  std::uint16_t bits;
  static float widen(Fp16 x) { return kernels::fp16_to_float(x.bits); }
  static Fp16 narrow(float x) { return {kernels::float_to_fp16(x)}; }
};

template <typename T>
inline constexpr bool kHalf = std::is_same_v<T, Bf16> || std::is_same_v<T, Fp16>;

template <typename T>
T load(const std::byte* at, std::size_t i) {
  T value;
  std::memcpy(&value, at + i * sizeof(T), sizeof(T));
  return value;
}
template <typename T>
void store(std::byte* at, std::size_t i, T value) {
  std::memcpy(at + i * sizeof(T), &value, sizeof(T));
}

struct Add {
  template <typename T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) {  // wraps around
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
    } else {
      return a + b;
    }
  }
};
struct Multiply {
  template <typename T>
  static T of(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      using Wide = std::common_type_t<U, unsigned>;  // no signed overflow by promotion
      return static_cast<T>(static_cast<U>(static_cast<Wide>(static_cast<U>(a)) *
                                           static_cast<Wide>(static_cast<U>(b))));
    } else {
      return a * b;
    }
  }
};
struct Least {
  template <typename T>
  static T of(T a, T b) {
    return a < b || a != a ? a : b;
  }
};
struct Most {
  template <typename T>
  static T of(T a, T b) {
    return a > b || a != a ? a : b;
  }
};

template <typename T, typename Operation>
void combine_all(std::byte* out, const std::byte* a, const std::byte* b, std::size_t count) {
  // `out` is `a`, or `b`, or apart: no element depends on another.
#pragma GCC ivdep
  for (std::size_t i = 0; i < count; ++i) {
    if constexpr (kHalf<T>) {
      store(out, i, T::narrow(Operation::of(T::widen(load<T>(a, i)), T::widen(load<T>(b, i)))));
    } else {
      store(out, i, Operation::of(load<T>(a, i), load<T>(b, i)));
    }
  }
}

#if defined(__x86_64__)
// Eight fp16 at a time; returns how many were done.
template <typename Operation>
__attribute__((target("avx2,f16c"))) std::size_t combine_fp16(std::byte* out, const std::byte* a,
                                                               const std::byte* b,
                                                               std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 left = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + 2 * i)));
    const __m256 right =
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 2 * i)));
    __m256 result = {};
    for (int lane = 0; lane < 8; ++lane) result[lane] = Operation::of(left[lane], right[lane]);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i),
                     _mm256_cvtps_ph(result, _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}

template <>
__attribute__((target("avx2,f16c"))) std::size_t combine_fp16<Add>(std::byte* out,
                                                                    const std::byte* a,
                                                                    const std::byte* b,
                                                                    std::size_t count) {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 left = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + 2 * i)));
    const __m256 right =
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + 2 * i)));
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(out + 2 * i),
        _mm256_cvtps_ph(_mm256_add_ps(left, right), _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}
#endif

template <typename Operation>
void combine_with(DType dtype, std::byte* out, const std::byte* a, const std::byte* b,
                  std::size_t bytes) {
  const std::size_t count = bytes / dtype_bytes(dtype);
  switch (dtype) {
    case DType::f32: return combine_all<float, Operation>(out, a, b, count);
    case DType::f64: return combine_all<double, Operation>(out, a, b, count);
    case DType::bf16: return combine_all<Bf16, Operation>(out, a, b, count);
    case DType::i8: return combine_all<std::int8_t, Operation>(out, a, b, count);
    case DType::u8: return combine_all<std::uint8_t, Operation>(out, a, b, count);
    case DType::i32: return combine_all<std::int32_t, Operation>(out, a, b, count);
    case DType::i64: return combine_all<std::int64_t, Operation>(out, a, b, count);
    case DType::f16: {
      std::size_t done = 0;
#if defined(__x86_64__)
      if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c")) {
        done = combine_fp16<Operation>(out, a, b, count);
      }
#endif
      return combine_all<Fp16, Operation>(out + 2 * done, a + 2 * done, b + 2 * done,
                                          count - done);
    }
  }
}

// Calls visit(T{}) with the type of the dtype's elements.
template <typename Visit>
void with_type(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::f32: return visit(float{});
    case DType::f64: return visit(double{});
    case DType::f16: return visit(Fp16{});
    case DType::bf16: return visit(Bf16{});
    case DType::i8: return visit(std::int8_t{});
    case DType::u8: return visit(std::uint8_t{});
    case DType::i32: return visit(std::int32_t{});
    case DType::i64: return visit(std::int64_t{});
  }
}

template <typename T>
T identity_of(Reduction reduction) {
  if constexpr (kHalf<T>) {
    return T::narrow(identity_of<float>(reduction));
  } else {
    using Limits = std::numeric_limits<T>;
    constexpr T kLargest = Limits::has_infinity ? Limits::infinity() : Limits::max();
    constexpr T kSmallest =
        Limits::has_infinity ? static_cast<T>(-Limits::infinity()) : Limits::lowest();
    switch (reduction) {
      case Reduction::product: return T{1};
      case Reduction::min: return kLargest;
      case Reduction::max: return kSmallest;
      default: return T{0};
    }
  }
}

template <typename T>
T quotient(T value, double total) {
  if constexpr (kHalf<T>) {
    return T::narrow(static_cast<float>(static_cast<double>(T::widen(value)) / total));
  } else if constexpr (std::is_integral_v<T>) {  // total is a number of members
    if constexpr (std::is_signed_v<T>) {
      return static_cast<T>(static_cast<std::int64_t>(value) / static_cast<std::int64_t>(total));
    } else {
      return static_cast<T>(value / static_cast<std::uint64_t>(total));
    }
  } else {
    return static_cast<T>(static_cast<double>(value) / total);
  }
}

}  // namespace

void combine(DType dtype, Reduction reduction, std::span<std::byte> out,
             std::span<const std::byte> a, std::span<const std::byte> b) {
  check(out.size() == a.size() && out.size() == b.size(), "combine: the spans differ in length");
  switch (reduction) {
    case Reduction::min:
      return combine_with<Least>(dtype, out.data(), a.data(), b.data(), out.size());
    case Reduction::max:
      return combine_with<Most>(dtype, out.data(), a.data(), b.data(), out.size());
    case Reduction::product:
      return combine_with<Multiply>(dtype, out.data(), a.data(), b.data(), out.size());
    case Reduction::sum:
    case Reduction::avg:
    case Reduction::none:
      return combine_with<Add>(dtype, out.data(), a.data(), b.data(), out.size());
  }
}

void scale(DType dtype, double weight, std::span<std::byte> out, std::span<const std::byte> x) {
  check(out.size() == x.size() && is_floating(dtype), "scale: not of floats of one length");
  const std::size_t count = out.size() / dtype_bytes(dtype);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kHalf<T>) {
      const auto factor = static_cast<float>(weight);
      for (std::size_t i = 0; i < count; ++i) {
        store(out.data(), i, T::narrow(factor * T::widen(load<T>(x.data(), i))));
      }
    } else if constexpr (std::is_floating_point_v<T>) {
      const auto factor = static_cast<T>(weight);
      for (std::size_t i = 0; i < count; ++i) {
        store(out.data(), i, static_cast<T>(factor * load<T>(x.data(), i)));
      }
    }
  });
}

void divide(DType dtype, double total, std::span<std::byte> values) {
  const std::size_t count = values.size() / dtype_bytes(dtype);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < count; ++i) {
      store(values.data(), i, quotient(load<T>(values.data(), i), total));
    }
  });
}

void fill_identity(DType dtype, Reduction reduction, std::span<std::byte> values) {
  const std::size_t count = values.size() / dtype_bytes(dtype);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T identity = identity_of<T>(reduction);
    for (std::size_t i = 0; i < count; ++i) store(values.data(), i, identity);
  });
}

}  // namespace reef
