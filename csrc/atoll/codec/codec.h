// Codecs: how a vector of fp32 travels. docs/codecs.md gives every byte and every rounding.
//
// Pure functions, any thread, no allocation, no state. Every instruction set gives the bits of the
// portable kernels. A vector is cut into blocks of kCodecBlock elements (the last may be short);
// any run of whole blocks is encoded and decoded by itself, and the encodings of consecutive runs,
// put one behind the other, are the encoding of the whole.
//
// Failure: sizes that do not fit are a bug of the caller (check). Encoded bytes from a stranger
// cannot harm: any bytes of the right length decode to some floats, the same on every machine.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace reef {

enum class CodecId : std::uint8_t {
  fp32 = 0,         // as it is
  bf16 = 1,         // 8 exponent, 7 mantissa bits
  fp16 = 2,         // IEEE half; values beyond 65504 saturate
  fp8 = 3,          // E4M3FN times a power of two per block
  int8 = 4,         // -127..127 times a scale per block
  int8_minmax = 5,  // the same around the middle of the block's range
  int4 = 6,         // -7..7 times a scale per 64 elements
  int4_minmax = 7,
  fp4 = 8,      // E3M0: 0, or +-2^0..2^-6 times a power of two per block
  two_bit = 9,  // +-1 or +-1/3 times a scale per block
};
inline constexpr std::size_t kCodecs = 10;

enum class Rounding : std::uint8_t { nearest = 0, stochastic = 1 };

struct Codec {
  CodecId id = CodecId::fp32;
  Rounding rounding = Rounding::nearest;
  std::uint64_t seed =
      0;  // stochastic: the random bits are a function of seed and element index alone
};

// Elements. Every codec's vectors are cut at multiples of it only.
inline constexpr std::size_t kCodecBlock = 256;

// What encode() met. The caller decides what follows; the bytes are valid in any case.
struct EncodeReport {
  std::uint64_t non_finite = 0;  // NaN and infinities read
  std::uint64_t saturated = 0;   // finite values beyond the format (bf16, fp16): now its largest
  EncodeReport& operator+=(const EncodeReport& other) {
    non_finite += other.non_finite;
    saturated += other.saturated;
    return *this;
  }
  bool operator==(const EncodeReport&) const = default;
};

[[nodiscard]] const char* codec_name(CodecId id);
[[nodiscard]] std::optional<CodecId> codec_named(std::string_view name);

// Bytes of `count` encoded elements, for a count that starts at a block boundary.
[[nodiscard]] std::size_t encoded_bytes(CodecId id, std::size_t count);

// `out` has encoded_bytes(in.size()) bytes. `first_element` is the index of in[0] in its vector, a
// multiple of kCodecBlock; only stochastic rounding looks at it. No overlap of in and out.
[[nodiscard]] EncodeReport encode(const Codec& codec, std::span<const float> in,
                                  std::span<std::byte> out, std::uint64_t first_element = 0);
// out[i] = decoded[i]; `in` has encoded_bytes(out.size()) bytes.
void decode(CodecId id, std::span<const std::byte> in, std::span<float> out);
// acc[i] = acc[i] + decoded[i] in fp32.
void decode_add(CodecId id, std::span<const std::byte> in, std::span<float> acc);

// ---- kernels by instruction set, for tests and measurements -----------------------------------

enum class Isa : std::uint8_t { portable = 0, avx2 = 1, avx512 = 2, neon = 3 };
inline constexpr std::array kIsas{Isa::portable, Isa::avx2, Isa::avx512, Isa::neon};

// The functions above set the floating-point environment (round to nearest even, denormals kept)
// and call one of these, which rely on it. Sizes are not checked. No alignment is needed.
struct CodecKernels {
  EncodeReport (*encode)(const float* in, std::size_t count, std::byte* out, const Codec& codec,
                         std::uint64_t first_element) = nullptr;
  void (*decode)(const std::byte* in, std::size_t count, float* out) = nullptr;
  void (*decode_add)(const std::byte* in, std::size_t count, float* acc) = nullptr;
};

[[nodiscard]] const char* isa_name(Isa isa);
[[nodiscard]] bool isa_available(Isa isa);  // compiled in, and this processor has it
[[nodiscard]] Isa best_isa();
// `isa` must be available.
[[nodiscard]] const CodecKernels& kernels_for(CodecId id, Isa isa);

}  // namespace reef
