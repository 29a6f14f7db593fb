// The portable kernels: plain loops over the scalar reference. They define every bit.
#include "atoll/codec/scalar_float.h"
#include "atoll/codec/scalar_grid.h"

namespace reef::codec {
namespace {

template <class Format, bool kStochastic>
EncodeReport encode_blocks(const float* in, std::size_t count, std::byte* out, std::uint64_t seed,
                           std::uint64_t first_element) {
  constexpr Layout kLayout = layout_of(Format::kId);
  EncodeReport report;
  for (std::size_t done = 0; done < count; done += kLayout.block) {
    const std::size_t n = count - done < kLayout.block ? count - done : kLayout.block;
    BlockNoise noise;
    if (kStochastic) {
      const std::uint64_t element = first_element + done;
      noise.noise = noise_of(seed, element / kCodecBlock);
      noise.first_lane = static_cast<std::uint32_t>(element % kCodecBlock);
    }
    report += Format::template encode<kStochastic>(in + done, n, out, noise);
    out += block_bytes(kLayout, n);
  }
  return report;
}

template <class Format>
EncodeReport encode_any(const float* in, std::size_t count, std::byte* out, const Codec& codec,
                        std::uint64_t first_element) {
  return codec.rounding == Rounding::stochastic
             ? encode_blocks<Format, true>(in, count, out, codec.seed, first_element)
             : encode_blocks<Format, false>(in, count, out, codec.seed, first_element);
}

template <class Format, bool kAdd>
void decode_blocks(const std::byte* in, std::size_t count, float* out) {
  constexpr Layout kLayout = layout_of(Format::kId);
  for (std::size_t done = 0; done < count; done += kLayout.block) {
    const std::size_t n = count - done < kLayout.block ? count - done : kLayout.block;
    Format::template decode<kAdd>(in, n, out + done);
    in += block_bytes(kLayout, n);
  }
}

template <class Format>
constexpr CodecKernels kernels_of() {
  return {encode_any<Format>, decode_blocks<Format, false>, decode_blocks<Format, true>};
}

constexpr CodecKernels kTable[kCodecs] = {
    kernels_of<Fp32>(), kernels_of<Bf16>(),       kernels_of<Fp16>(), kernels_of<Fp8>(),
    kernels_of<Int8>(), kernels_of<Int8MinMax>(), kernels_of<Int4>(), kernels_of<Int4MinMax>(),
    kernels_of<Fp4>(),  kernels_of<TwoBit>()};

}  // namespace

const CodecKernels& portable_kernels(CodecId id) {
  return kTable[static_cast<std::size_t>(id)];
}

}  // namespace reef::codec
