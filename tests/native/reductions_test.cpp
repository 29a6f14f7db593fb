// Every reduction, dtype and plan on a shuffled network, with small whole numbers, whose sums and
// products are exact in every dtype: so the expected result does not depend on the order.

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "atoll/kernels/half.h"
#include "loopback.h"

namespace reef::testing {
namespace {

constexpr Plan kPlans[] = {Plan::ring, Plan::direct, Plan::doubling, Plan::mesh, Plan::grouped};
constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::f16, DType::bf16,
                             DType::i8,  DType::u8,  DType::i32, DType::i64};
constexpr Reduction kReductions[] = {Reduction::sum, Reduction::avg, Reduction::min,
                                     Reduction::max, Reduction::product};

void put(DType dtype, std::vector<std::byte>& bytes, std::size_t i, double value) {
  const auto store = [&](auto typed) {
    std::memcpy(bytes.data() + i * sizeof(typed), &typed, sizeof(typed));
  };
  switch (dtype) {
    case DType::f32: return store(static_cast<float>(value));
    case DType::f64: return store(value);
    case DType::f16: return store(kernels::float_to_fp16(static_cast<float>(value)));
    case DType::bf16: return store(kernels::float_to_bf16(static_cast<float>(value)));
    case DType::i8: return store(static_cast<std::int8_t>(value));
    case DType::u8: return store(static_cast<std::uint8_t>(value));
    case DType::i32: return store(static_cast<std::int32_t>(value));
    case DType::i64: return store(static_cast<std::int64_t>(value));
  }
}

double get(DType dtype, const std::vector<std::byte>& bytes, std::size_t i) {
  const auto load = [&](auto typed) {
    std::memcpy(&typed, bytes.data() + i * sizeof(typed), sizeof(typed));
    return typed;
  };
  switch (dtype) {
    case DType::f32: return static_cast<double>(load(0.0F));
    case DType::f64: return load(0.0);
    case DType::f16: return static_cast<double>(kernels::fp16_to_float(load(std::uint16_t{0})));
    case DType::bf16: return static_cast<double>(kernels::bf16_to_float(load(std::uint16_t{0})));
    case DType::i8: return static_cast<double>(load(std::int8_t{0}));
    case DType::u8: return static_cast<double>(load(std::uint8_t{0}));
    case DType::i32: return static_cast<double>(load(std::int32_t{0}));
    case DType::i64: return static_cast<double>(load(std::int64_t{0}));
  }
  return 0;
}

double shape(DType dtype, double value) {  // as it is after a rounding to the dtype
  std::vector<std::byte> bytes(8);
  put(dtype, bytes, 0, value);
  return get(dtype, bytes, 0);
}

struct Vector {
  std::vector<std::byte> in;
  std::vector<std::byte> out;
};

struct Job {
  DType dtype = DType::f32;
  Reduction reduction = Reduction::sum;
  Plan plan = Plan::none;
  std::size_t count = 0;
  std::vector<double> weights;  // by member
  Codec codec;
  std::uint32_t chunk_bytes = 64;
};

double value_of(const Job& job, std::size_t peer, std::size_t i) {
  if (job.reduction == Reduction::product) return 1 + static_cast<double>((peer + i) % 2);
  return static_cast<double>((3 * peer + 5 * i + peer * i) % 8);
}

class Group {
 public:
  Group(const Job& job, std::size_t peers, std::uint64_t seed, std::size_t eager = 1u << 20)
      : job_(job), net_(peers, options(eager)), vectors_(peers) {
    net_.shuffle(seed);
    net_.install_all();
    const std::size_t width = dtype_bytes(job.dtype);
    for (std::size_t peer = 0; peer < peers; ++peer) {
      vectors_[peer].in.resize(job.count * width);
      vectors_[peer].out.assign(job.count * width, std::byte{0x5a});
      for (std::size_t i = 0; i < job.count; ++i) {
        put(job.dtype, vectors_[peer].in, i, value_of(job, peer, i));
      }
    }
  }
  Vector& operator[](std::size_t peer) { return vectors_[peer]; }
  Loopback& net() { return net_; }

  OpRequest request(std::size_t peer) {
    OpRequest request;
    request.id = peer + 1;
    request.kind = OpKind::all_reduce;
    request.dtype = job_.dtype;
    request.reduction = job_.reduction;
    request.plan = job_.plan;
    request.codec = job_.codec;
    request.chunk_bytes = job_.chunk_bytes;
    request.count = job_.count;
    request.weight = job_.weights.empty() ? 1 : job_.weights[peer];
    request.in = vectors_[peer].in;
    request.out = vectors_[peer].out;
    return request;
  }
  void run() {
    for (std::size_t peer = 0; peer < net_.size(); ++peer) {
      net_.submit(peer, request(peer));
      if (peer % 2 == 0) net_.step([](const Frame&) { return true; });
    }
    net_.run();
    EXPECT_TRUE(net_.blamed().empty());
    for (std::size_t peer = 0; peer < net_.size(); ++peer) {
      ASSERT_TRUE(net_.ended_with(peer, peer + 1, Code::ok));
    }
  }

 private:
  static CoreOptions options(std::size_t eager) {
    CoreOptions options;
    options.eager_bytes = eager;
    return options;
  }
  Job job_;
  Loopback net_;
  std::vector<Vector> vectors_;
};

double expected(const Job& job, std::size_t peers, std::size_t i) {
  double sum = 0;
  double product = 1;
  double least = std::numeric_limits<double>::infinity();
  double most = -least;
  double total = 0;
  for (std::size_t peer = 0; peer < peers; ++peer) {
    const double weight = job.weights.empty() ? 1 : job.weights[peer];
    if (weight == 0) continue;
    const double value = value_of(job, peer, i);
    sum += weight * value;
    product *= value;
    least = std::min(least, value);
    most = std::max(most, value);
    total += weight;
  }
  switch (job.reduction) {
    case Reduction::avg: {
      const double average = sum / total;
      return is_floating(job.dtype) ? average : std::trunc(average);
    }
    case Reduction::min: return least;
    case Reduction::max: return most;
    case Reduction::product: return product;
    default: return sum;
  }
}

class Reductions : public ::testing::TestWithParam<Plan> {};
std::string name_of(const ::testing::TestParamInfo<Plan>& which) { return plan_name(which.param); }
INSTANTIATE_TEST_SUITE_P(Plans, Reductions, ::testing::ValuesIn(kPlans), name_of);

TEST_P(Reductions, OfEveryDTypeAreWhatTheySay) {
  std::uint64_t seed = 1;
  for (const DType dtype : kDTypes) {
    for (const Reduction reduction : kReductions) {
      for (const std::size_t peers : {1, 2, 3, 5, 6, 8}) {
        for (const std::size_t count : {0, 1, 4, 103}) {
          Job job{dtype, reduction, GetParam(), count, {}, {}, 64};
          ++seed;
          Group group(job, peers, seed, seed % 3 == 0 ? 0 : 300);
          group.run();
          for (std::size_t peer = 0; peer < peers; ++peer) {
            for (std::size_t i = 0; i < count; ++i) {
              ASSERT_EQ(get(dtype, group[peer].out, i), shape(dtype, expected(job, peers, i)))
                  << "dtype " << int(dtype) << " reduction " << int(reduction) << " peers " << peers
                  << " count " << count << " at " << i;
            }
          }
        }
      }
    }
  }
}

// What a member that contributes nothing has in its buffer is nobody's business.
TEST_P(Reductions, LeaveOutWhoContributesNothing) {
  std::uint64_t seed = 1;
  for (const Reduction reduction : kReductions) {
    for (const std::size_t peers : {1, 2, 3, 5, 8}) {
      for (std::uint64_t mask = 0; mask < (1u << peers); mask += peers > 4 ? 7 : 1) {
        Job job{DType::f32, reduction, GetParam(), 37, {}, {}, 64};
        std::size_t contributors = 0;
        for (std::size_t peer = 0; peer < peers; ++peer) {
          job.weights.push_back((mask >> peer & 1u) != 0 ? 0 : 1);
          contributors += job.weights.back() > 0 ? 1 : 0;
        }
        ++seed;
        Group group(job, peers, seed, seed % 3 == 0 ? 0 : 300);
        for (std::size_t peer = 0; peer < peers; ++peer) {
          if (job.weights[peer] > 0) continue;
          for (std::size_t i = 0; i < job.count; ++i) {
            put(job.dtype, group[peer].in, i, std::numeric_limits<double>::quiet_NaN());
          }
        }
        group.run();
        for (std::size_t peer = 0; peer < peers; ++peer) {
          const Summary summary = group.net().completed(peer, peer + 1)->summary;
          EXPECT_EQ(summary.contributors, contributors);
          EXPECT_EQ(summary.members, peers);
          EXPECT_EQ(summary.plan, GetParam());
          for (std::size_t i = 0; i < job.count; ++i) {
            const double got = get(job.dtype, group[peer].out, i);
            const bool empty_average = contributors == 0 && reduction == Reduction::avg;
            const double wanted = empty_average ? 0 : expected(job, peers, i);
            ASSERT_EQ(got, shape(job.dtype, wanted)) << int(reduction) << " mask " << mask;
          }
        }
      }
    }
  }
}

TEST_P(Reductions, WeighAverages) {
  std::uint64_t seed = 1;
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const std::size_t peers : {1, 2, 3, 4, 7}) {
      Job job{dtype, Reduction::avg, GetParam(), 61, {}, {}, 64};
      for (std::size_t peer = 0; peer < peers; ++peer) {
        job.weights.push_back(peer == 1 ? 0 : static_cast<double>(1 + 2 * peer));
      }
      ++seed;
      Group group(job, peers, seed, 0);
      group.run();
      for (std::size_t peer = 0; peer < peers; ++peer) {
        for (std::size_t i = 0; i < job.count; ++i) {
          ASSERT_EQ(get(dtype, group[peer].out, i), shape(dtype, expected(job, peers, i)));
        }
      }
    }
  }
}

TEST_P(Reductions, WithACodecEndInTheSameBitsEverywhere) {
  if (GetParam() == Plan::mesh || GetParam() == Plan::doubling) GTEST_SKIP() << "knows no codec";
  std::uint64_t seed = 1;
  for (std::size_t id = 1; id < kCodecs; ++id) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
      for (const std::size_t peers : {1, 2, 3, 4, 7}) {
        for (const std::size_t count : {0, 1, 255, 256, 257, 5'000}) {
          Job job{DType::f32, Reduction::avg, GetParam(), count, {}, {}, 2'048};
          job.codec = {static_cast<CodecId>(id), rounding, seed};
          ++seed;
          Group group(job, peers, seed, seed % 3 == 0 ? 0 : 3'000);
          std::mt19937_64 random(seed);
          std::uniform_real_distribution<float> numbers(-1, 1);
          std::vector<double> truth(count, 0);
          for (std::size_t peer = 0; peer < peers; ++peer) {
            for (std::size_t i = 0; i < count; ++i) {
              const float number = numbers(random);
              put(job.dtype, group[peer].in, i, static_cast<double>(number));
              truth[i] += static_cast<double>(number) / static_cast<double>(peers);
            }
          }
          group.run();
          double error = 0;
          for (std::size_t i = 0; i < count; ++i) {
            error += std::pow(get(job.dtype, group[0].out, i) - truth[i], 2);
          }
          for (std::size_t peer = 1; peer < peers; ++peer) {
            ASSERT_EQ(group[peer].out, group[0].out) << codec_name(job.codec.id);
          }
          // Numbers of size 1; the coarsest codec is off by about a third, twice.
          if (count >= 255) {
            const bool fine = job.codec.id <= CodecId::int8_minmax;
            const double rms = std::sqrt(error / static_cast<double>(count));
            EXPECT_LT(rms, fine ? 0.12 : 0.6) << codec_name(job.codec.id) << " " << peers;
          }
        }
      }
    }
  }
}

// A NaN is found and counted, and does not leave its block.
TEST_P(Reductions, WithACodecReportWhatIsNotFinite) {
  if (GetParam() == Plan::mesh || GetParam() == Plan::doubling) GTEST_SKIP() << "knows no codec";
  Job job{DType::f32, Reduction::sum, GetParam(), 2'000, {}, {}, 2'048};
  job.codec = {CodecId::int8, Rounding::nearest, 0};
  Group group(job, 3, 5);
  put(job.dtype, group[1].in, 700, std::numeric_limits<double>::quiet_NaN());
  group.run();
  std::uint64_t met = 0;
  for (std::size_t peer = 0; peer < 3; ++peer) {
    met += group.net().completed(peer, peer + 1)->summary.encoded.non_finite;
    std::size_t bad = 0;
    for (std::size_t i = 0; i < job.count; ++i) {
      if (std::isfinite(get(job.dtype, group[peer].out, i))) continue;
      ++bad;
      EXPECT_EQ(i / kCodecBlock, 700 / kCodecBlock);
    }
    EXPECT_GE(bad, 1u);
  }
  EXPECT_GE(met, 1u);
}

TEST(ReduceScatter, GivesEveryoneItsPart) {
  std::uint64_t seed = 1;
  for (const DType dtype : {DType::f32, DType::i64, DType::bf16}) {
    for (const std::size_t peers : {1, 2, 3, 5}) {
      for (const std::size_t count : {0, 2, 100, 1'001}) {
        Job job{dtype, Reduction::avg, Plan::none, count, {}, {}, 64};
        ++seed;
        Group group(job, peers, seed, seed % 2 == 0 ? 0 : 300);
        const std::size_t width = dtype_bytes(dtype);
        const auto begin = [&](std::size_t peer) { return count * peer / peers; };
        for (std::size_t peer = 0; peer < peers; ++peer) {
          OpRequest request = group.request(peer);
          request.kind = OpKind::reduce_scatter;
          request.out = request.out.first((begin(peer + 1) - begin(peer)) * width);
          group.net().submit(peer, request);
        }
        group.net().run();
        for (std::size_t peer = 0; peer < peers; ++peer) {
          ASSERT_TRUE(group.net().ended_with(peer, peer + 1, Code::ok));
          for (std::size_t i = begin(peer); i < begin(peer + 1); ++i) {
            ASSERT_EQ(get(dtype, group[peer].out, i - begin(peer)),
                      shape(dtype, expected(job, peers, i)));
          }
        }
      }
    }
  }
}

// A restored op gives its buffer back when it fails.
TEST(InPlace, RestoresTheInputOnFailure) {
  Loopback net(2);
  net.install_all();
  std::vector<float> buffer{1, 2, 3, 4};
  const std::vector<float> copy = buffer;
  OpRequest request;
  request.id = 77;
  request.kind = OpKind::all_reduce;
  request.count = 4;
  request.in = std::as_bytes(std::span(copy));
  request.out = std::as_writable_bytes(std::span(buffer));
  request.restore = true;
  std::fill(buffer.begin(), buffer.end(), -1.0F);
  net.submit(0, request);
  net.core(0).abort(77, 0);
  net.collect();
  EXPECT_TRUE(net.ended_with(0, 77, Code::aborted));
  EXPECT_EQ(buffer, copy);
}

// Input and output the same memory, every plan, in any order of the frames.
TEST(InPlace, OverwritesItsInput) {
  for (const Plan plan : kPlans) {
    for (const Reduction reduction : {Reduction::sum, Reduction::avg, Reduction::min}) {
      for (const std::size_t peers : {1u, 2u, 3u, 5u}) {
        Job job{DType::f32, reduction, plan, 203, {}, {}, 64};
        if (reduction == Reduction::avg) job.weights = {1, 3, 0, 2, 1};
        job.weights.resize(job.weights.empty() ? 0 : peers);
        for (std::uint64_t seed = 0; seed < 5; ++seed) {
          Group group(job, peers, seed);
          for (std::size_t peer = 0; peer < peers; ++peer) {
            group[peer].out = group[peer].in;
            OpRequest request = group.request(peer);
            request.in = group[peer].out;
            request.overwrite = true;
            group.net().submit(peer, request);
          }
          group.net().run();
          for (std::size_t peer = 0; peer < peers; ++peer) {
            ASSERT_TRUE(group.net().ended_with(peer, peer + 1, Code::ok));
            for (std::size_t i = 0; i < job.count; ++i) {
              ASSERT_EQ(get(job.dtype, group[peer].out, i),
                        shape(job.dtype, expected(job, peers, i)))
                  << "plan " << static_cast<int>(plan) << ", " << peers << " members";
            }
          }
        }
      }
    }
  }
}

// Its input may be gone: it does not run again without the lost member.
TEST(InPlace, FailsInTheNextViewOnceItHasBegunOverItsInput) {
  Loopback net(3);
  net.install_all();
  std::vector<std::vector<float>> buffers(2, std::vector<float>(64, 1.0F));
  for (std::size_t peer = 0; peer < 2; ++peer) {
    OpRequest request;
    request.id = 5;
    request.kind = OpKind::all_reduce;
    request.plan = Plan::ring;
    request.count = 64;
    request.in = std::as_bytes(std::span(buffers[peer]));
    request.out = std::as_writable_bytes(std::span(buffers[peer]));
    request.overwrite = true;
    net.submit(peer, request);
  }
  for (std::size_t peer = 0; peer < 2; ++peer) {
    net.core(peer).install(Loopback::view_of(2, {0, 1}), {}, Change::abort, 0);
  }
  net.collect();
  net.run();
  for (std::size_t peer = 0; peer < 2; ++peer) {
    EXPECT_TRUE(net.ended_with(peer, 5, Code::view_changed));
  }
}

}  // namespace
}  // namespace reef::testing
