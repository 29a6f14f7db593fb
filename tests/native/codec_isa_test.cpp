// Every instruction set that this machine has gives the bits of the portable kernels.
#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "codec_samples.h"

namespace reef {
namespace {

using samples::mixture;

struct Encoded {
  std::vector<std::byte> bytes;
  EncodeReport report;
};

constexpr std::byte kGuard{0xa5};

// Encodes to an address off by `skew` bytes; checks that nothing around the output is written.
Encoded run_encode(Isa isa, const Codec& codec, const float* x, std::size_t count,
                   std::uint64_t first_element, std::size_t skew) {
  const std::size_t size = encoded_bytes(codec.id, count);
  std::vector<std::byte> buffer(size + skew + 64, kGuard);
  Encoded encoded;
  encoded.report =
      kernels_for(codec.id, isa).encode(x, count, buffer.data() + skew, codec, first_element);
  for (std::size_t i = 0; i < skew; ++i) EXPECT_EQ(buffer[i], kGuard) << "before the output";
  for (std::size_t i = skew + size; i < buffer.size(); ++i) {
    EXPECT_EQ(buffer[i], kGuard) << "behind the output";
  }
  encoded.bytes.assign(buffer.begin() + static_cast<std::ptrdiff_t>(skew),
                       buffer.begin() + static_cast<std::ptrdiff_t>(skew + size));
  return encoded;
}

// What lies behind the bytes is the end of the allocation, so that ASan sees any over-read.
std::vector<std::uint32_t> run_decode(Isa isa, CodecId id, const std::vector<std::byte>& bytes,
                                      std::vector<float> acc, bool add, std::size_t skew) {
  std::vector<std::byte> moved(skew, kGuard);
  moved.insert(moved.end(), bytes.begin(), bytes.end());
  moved.shrink_to_fit();
  const CodecKernels& kernels = kernels_for(id, isa);
  (add ? kernels.decode_add : kernels.decode)(moved.data() + skew, acc.size(), acc.data());
  std::vector<std::uint32_t> bits;
  for (const float value : acc) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

class CodecIsa : public testing::TestWithParam<std::tuple<Isa, CodecId>> {
 protected:
  static Isa isa() { return std::get<0>(GetParam()); }
  static CodecId id() { return std::get<1>(GetParam()); }

  // All three functions on x, against the portable ones. Returns false on the first difference.
  static bool same(const std::vector<float>& x, const Codec& codec, std::size_t skew) {
    const std::uint64_t first = 7 * kCodecBlock;
    const Encoded want = run_encode(Isa::portable, codec, x.data(), x.size(), first, 0);
    const Encoded got = run_encode(isa(), codec, x.data(), x.size(), first, skew);
    EXPECT_EQ(got.bytes, want.bytes);
    EXPECT_EQ(got.report, want.report);
    return same_decoded(want.bytes, x.size(), skew) && !testing::Test::HasFailure();
  }
  static bool same_decoded(const std::vector<std::byte>& bytes, std::size_t count,
                           std::size_t skew) {
    const std::vector<float> acc = mixture(count, 99, 0, true);
    for (const bool add : {false, true}) {
      EXPECT_EQ(run_decode(isa(), id(), bytes, acc, add, skew),
                run_decode(Isa::portable, id(), bytes, acc, add, 0))
          << (add ? "decode_add" : "decode");
    }
    return !testing::Test::HasFailure();
  }
};

TEST_P(CodecIsa, EveryLengthNearestAndStochastic) {
  for (std::size_t count = 0; count <= 2 * kCodecBlock + 3; ++count) {
    const std::vector<float> x = mixture(count, count, count);
    ASSERT_TRUE(same(x, {id(), Rounding::nearest, 0}, count % 5)) << count << " elements";
    ASSERT_TRUE(same(x, {id(), Rounding::stochastic, count}, count % 3)) << count << " elements";
  }
}

TEST_P(CodecIsa, EveryKindOfBlock) {
  for (std::uint64_t kind = 0; kind < samples::kKinds; ++kind) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      const std::vector<float> x = mixture(8 * kCodecBlock + 17, seed, kind, true);
      ASSERT_TRUE(same(x, {id(), Rounding::nearest, 0}, 0)) << "kind " << kind;
      ASSERT_TRUE(same(x, {id(), Rounding::stochastic, seed}, 1)) << "kind " << kind;
    }
  }
}

TEST_P(CodecIsa, UnalignedFloats) {
  const std::vector<float> x = mixture(4 * kCodecBlock + 16, 5);
  for (std::size_t offset = 0; offset < 16; ++offset) {
    const std::vector<float> part(x.begin() + static_cast<std::ptrdiff_t>(offset), x.end());
    const Codec codec{id(), Rounding::nearest, 0};
    const Encoded want = run_encode(Isa::portable, codec, part.data(), part.size(), 0, 0);
    const Encoded got = run_encode(isa(), codec, x.data() + offset, part.size(), 0, offset);
    ASSERT_EQ(got.bytes, want.bytes);
    std::vector<float> out(x.size()), expected(part.size());
    kernels_for(id(), isa()).decode(want.bytes.data(), part.size(), out.data() + offset);
    kernels_for(id(), Isa::portable).decode(want.bytes.data(), part.size(), expected.data());
    ASSERT_EQ(std::memcmp(out.data() + offset, expected.data(), 4 * part.size()), 0);
  }
}

// Bytes from strangers: any header, any code.
TEST_P(CodecIsa, AnyBytesDecodeAlike) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 300; ++round) {
    const std::size_t count = 1 + random() % (3 * kCodecBlock);
    std::vector<std::byte> bytes(encoded_bytes(id(), count));
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    ASSERT_TRUE(same_decoded(bytes, count, round % 4)) << "round " << round;
  }
}

TEST_P(CodecIsa, ChunksGiveTheBytesOfTheWhole) {
  const std::size_t count = 9 * kCodecBlock + 100;
  const std::vector<float> x = mixture(count, 11);
  for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
    const Codec codec{id(), rounding, 42};
    const Encoded whole = run_encode(isa(), codec, x.data(), count, 0, 0);
    for (const std::size_t blocks : {1u, 2u, 4u}) {
      std::vector<std::byte> joined;
      EncodeReport report;
      for (std::size_t at = 0; at < count; at += blocks * kCodecBlock) {
        const std::size_t n = std::min(blocks * kCodecBlock, count - at);
        const Encoded part = run_encode(isa(), codec, x.data() + at, n, at, 0);
        joined.insert(joined.end(), part.bytes.begin(), part.bytes.end());
        report += part.report;
      }
      ASSERT_EQ(joined, whole.bytes);
      ASSERT_EQ(report, whole.report);
    }
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kIsas) {
    if (isa_available(isa)) isas.push_back(isa);
  }
  return isas;
}
std::string name_of(const testing::TestParamInfo<CodecIsa::ParamType>& info) {
  std::string name =
      std::string(isa_name(std::get<0>(info.param))) + "_" + codec_name(std::get<1>(info.param));
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}
INSTANTIATE_TEST_SUITE_P(All, CodecIsa,
                         testing::Combine(testing::ValuesIn(available_isas()),
                                          testing::ValuesIn(samples::all_codecs())),
                         name_of);

TEST(CodecDispatch, TheBestIsAvailable) {
  EXPECT_TRUE(isa_available(Isa::portable));
  EXPECT_TRUE(isa_available(best_isa()));
}

}  // namespace
}  // namespace reef
