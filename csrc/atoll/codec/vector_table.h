// Turns the block kernels into a table of CodecKernels for one instruction set.
#pragma once

#include "atoll/codec/blocks_float.h"
#include "atoll/codec/blocks_grid.h"

namespace reef::codec {
namespace {

// Encoding a block waits for its largest value, so the processor does not run far enough ahead to
// keep the memory busy. Fetching the values 4 KiB ahead does (docs/codecs.md has the measurement).
constexpr std::size_t kFetchAhead = 1024;
constexpr std::size_t kLineElements = 16;

template <class V, class Format, bool kStochastic>
EncodeReport encode_blocks(const float* in, std::size_t count, std::byte* out, const Codec& codec,
                           std::uint64_t first_element) {
  constexpr Layout kLayout = layout_of(Format::kId);
  constexpr std::size_t kBytes = block_bytes(kLayout, kLayout.block);
  EncodeReport report;
  std::size_t done = 0;
  for (; done + kLayout.block <= count; done += kLayout.block, out += kBytes) {
    // Not a function of its own: GCC removes calls that do nothing but prefetch.
    if (count - done >= kFetchAhead + kLayout.block) {
      const float* ahead = in + done + kFetchAhead;
      for (std::size_t i = 0; i < kLayout.block; i += kLineElements) __builtin_prefetch(ahead + i);
    }
    BlockNoise noise;
    const std::uint64_t element = first_element + done;
    if constexpr (kStochastic) {
      noise.noise = noise_of(codec.seed, element / kCodecBlock);
      noise.first_lane = static_cast<std::uint32_t>(element % kCodecBlock);
    }
    if (!Format::template encode<V, kStochastic>(in + done, out, noise)) {
      const EncodeReport block =
          portable_kernels(Format::kId).encode(in + done, kLayout.block, out, codec, element);
      report.non_finite += block.non_finite;
      report.saturated += block.saturated;
    }
  }
  if (done < count) {
    const EncodeReport rest =
        portable_kernels(Format::kId)
            .encode(in + done, count - done, out, codec, first_element + done);
    report.non_finite += rest.non_finite;
    report.saturated += rest.saturated;
  }
  return report;
}

template <class V, class Format>
EncodeReport encode_any(const float* in, std::size_t count, std::byte* out, const Codec& codec,
                        std::uint64_t first_element) {
  return codec.rounding == Rounding::stochastic
             ? encode_blocks<V, Format, true>(in, count, out, codec, first_element)
             : encode_blocks<V, Format, false>(in, count, out, codec, first_element);
}

template <class V, class Format, bool kAdd>
void decode_blocks(const std::byte* in, std::size_t count, float* out) {
  constexpr Layout kLayout = layout_of(Format::kId);
  constexpr std::size_t kBytes = block_bytes(kLayout, kLayout.block);
  std::size_t done = 0;
  for (; done + kLayout.block <= count; done += kLayout.block, in += kBytes) {
    Format::template decode<V, kAdd>(in, out + done);
  }
  if (done < count) {
    const CodecKernels& portable = portable_kernels(Format::kId);
    (kAdd ? portable.decode_add : portable.decode)(in, count - done, out + done);
  }
}

template <class V, class Format>
constexpr CodecKernels kernels_of() {
  return {encode_any<V, Format>, decode_blocks<V, Format, false>, decode_blocks<V, Format, true>};
}

template <class V>
constexpr CodecKernels kTable[kCodecs] = {kernels_of<V, Fp32>(), kernels_of<V, Bf16>(),
                                          kernels_of<V, Fp16>(), kernels_of<V, Fp8>(),
                                          kernels_of<V, Int8>(), kernels_of<V, Int8MinMax>(),
                                          kernels_of<V, Int4>(), kernels_of<V, Int4MinMax>(),
                                          kernels_of<V, Fp4>(),  kernels_of<V, TwoBit>()};

}  // namespace
}  // namespace reef::codec
