#include "atoll/codec/codec.h"

#include "atoll/base/result.h"
#include "atoll/codec/format.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace reef {
namespace {

constexpr std::array<const char*, kCodecs> kNames{
    "fp32", "bf16", "fp16", "fp8", "int8", "int8-minmax", "int4", "int4-minmax", "fp4", "2bit"};

// Rounding to nearest even and denormals as IEEE has them, whatever the calling thread has set
// (torch.set_flush_denormal does), for as long as this lives.
class ExactFloats {
 public:
  ExactFloats(const ExactFloats&) = delete;
  ExactFloats& operator=(const ExactFloats&) = delete;
#if defined(__x86_64__)
  ExactFloats() : saved_(_mm_getcsr()) {
    _mm_setcsr(kDefault);
  }
  ~ExactFloats() {
    _mm_setcsr(saved_);
  }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all exceptions masked
  unsigned saved_;
#elif defined(__aarch64__)
  ExactFloats() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~ExactFloats() {
    asm volatile("msr fpcr, %0" : : "r"(saved_));
  }

 private:
  std::uint64_t saved_ = 0;
#else
  ExactFloats() {}
#endif
};

}  // namespace

const char* codec_name(CodecId id) {
  const auto index = static_cast<std::size_t>(id);
  return index < kCodecs ? kNames[index] : "unknown";
}

std::optional<CodecId> codec_named(std::string_view name) {
  for (std::size_t i = 0; i < kCodecs; ++i) {
    if (name == kNames[i]) return static_cast<CodecId>(i);
  }
  return std::nullopt;
}

std::size_t encoded_bytes(CodecId id, std::size_t count) {
  const codec::Layout layout = codec::layout_of(id);
  const std::size_t rest = count % layout.block;
  return count / layout.block * codec::block_bytes(layout, layout.block) +
         (rest != 0 ? codec::block_bytes(layout, rest) : 0);
}

EncodeReport encode(const Codec& codec, std::span<const float> in, std::span<std::byte> out,
                    std::uint64_t first_element) {
  check(out.size() == encoded_bytes(codec.id, in.size()), "encode: the output has another size");
  check(first_element % kCodecBlock == 0, "encode: a chunk starts inside a block");
  const CodecKernels& kernels = kernels_for(codec.id, best_isa());
  const ExactFloats scope;
  return kernels.encode(in.data(), in.size(), out.data(), codec, first_element);
}

void decode(CodecId id, std::span<const std::byte> in, std::span<float> out) {
  check(in.size() == encoded_bytes(id, out.size()), "decode: the input has another size");
  const CodecKernels& kernels = kernels_for(id, best_isa());
  const ExactFloats scope;
  kernels.decode(in.data(), out.size(), out.data());
}

void decode_add(CodecId id, std::span<const std::byte> in, std::span<float> acc) {
  check(in.size() == encoded_bytes(id, acc.size()), "decode_add: the input has another size");
  const CodecKernels& kernels = kernels_for(id, best_isa());
  const ExactFloats scope;
  kernels.decode_add(in.data(), acc.size(), acc.data());
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::neon:
      return "neon";
  }
  return "unknown";
}

bool isa_available(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  if (isa == Isa::avx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
  if (isa == Isa::neon) return true;
#endif
  return isa == Isa::portable;
}

Isa best_isa() {
  for (const Isa isa : {Isa::avx512, Isa::avx2, Isa::neon}) {
    if (isa_available(isa)) return isa;
  }
  return Isa::portable;
}

const CodecKernels& kernels_for(CodecId id, Isa isa) {
  check(static_cast<std::size_t>(id) < kCodecs, "kernels_for: no such codec");
  check(isa_available(isa), "kernels_for: this processor lacks the instruction set");
#if defined(__x86_64__)
  if (isa == Isa::avx2) return codec::avx2_kernels(id);
  if (isa == Isa::avx512) return codec::avx512_kernels(id);
#elif defined(__aarch64__) && !defined(__AARCH64EB__)
  if (isa == Isa::neon) return codec::neon_kernels(id);
#endif
  return codec::portable_kernels(id);
}

}  // namespace reef
