// Engines in one process, over real sockets on the loopback interface.
#include <gtest/gtest.h>

#include <vector>

#include "island.h"

namespace reef::testing {
namespace {

// Small integers, so that every order of addition gives the exact sum.
float value_of(std::size_t member, std::size_t index) {
  return static_cast<float>((member + 1) * 3 + index % 1'009);
}

std::vector<float> vector_of(std::size_t member, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = value_of(member, i);
  }
  return values;
}

std::vector<float> sum_of(std::size_t members, std::size_t count) {
  std::vector<float> sum(count);
  for (std::size_t member = 0; member < members; ++member) {
    for (std::size_t i = 0; i < count; ++i) {
      sum[i] += value_of(member, i);
    }
  }
  return sum;
}

void expect_all_reduce(Atoll& atoll, std::size_t count, Plan plan) {
  std::vector<std::vector<float>> in;
  std::vector<std::vector<float>> out(atoll.size());
  std::vector<OpId> ops;
  for (std::size_t i = 0; i < atoll.size(); ++i) {
    in.push_back(vector_of(i, count));
    out[i].assign(count, -1);
  }
  for (std::size_t i = 0; i < atoll.size(); ++i) {
    ops.push_back(atoll[i].all_reduce(in[i], out[i], plan));
  }
  const std::vector<float> sum = sum_of(atoll.size(), count);
  for (std::size_t i = 0; i < atoll.size(); ++i) {
    const Outcome outcome = atoll[i].finish(ops[i]);
    EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
    EXPECT_EQ(outcome.epoch, 1u);
    EXPECT_TRUE(out[i] == sum) << "member " << i << " of " << atoll.size() << ", count " << count;
    EXPECT_TRUE(in[i] == vector_of(i, count));
  }
}

class Members : public ::testing::TestWithParam<unsigned> {};

TEST_P(Members, AllReduceIsTheExactSum) {
  Atoll atoll(GetParam());
  for (const std::size_t count : {0u, 1u, 3u, 1'000u, 1'000'000u}) {
    for (const Plan plan : {Plan::none, Plan::ring, Plan::direct}) {
      expect_all_reduce(atoll, count, plan);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TwoToFive, Members, ::testing::Values(2u, 3u, 4u, 5u));

}  // namespace
}  // namespace reef::testing
