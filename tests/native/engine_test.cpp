// Engines in one process, over real sockets on the loopback interface.
#include <gtest/gtest.h>

#include <functional>
#include <tuple>
#include <vector>

#include "atoll/base/limits.h"
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

class Members : public ::testing::TestWithParam<std::tuple<unsigned, bool>> {
 protected:
  [[nodiscard]] static unsigned members() { return std::get<0>(GetParam()); }

 private:
  TransportChoice choice_{std::get<1>(GetParam())};
};

TEST_P(Members, AllReduceIsTheExactSum) {
  Atoll atoll(members());
  for (const std::size_t count : {0u, 1u, 3u, 1'000u, 1'000'000u}) {
    for (const Plan plan : {Plan::none, Plan::ring, Plan::direct}) {
      expect_all_reduce(atoll, count, plan);
    }
  }
}

TEST_P(Members, BroadcastGivesEverybodyTheRootsValues) {
  Atoll atoll(members());
  for (const std::size_t count : {0u, 1u, 3u, 1'000u, 1'000'000u}) {
    for (std::size_t root = 0; root < atoll.size(); ++root) {
      const std::vector<float> in = vector_of(root, count);
      std::vector<std::vector<float>> out(atoll.size(), std::vector<float>(count, -1));
      std::vector<OpId> ops;
      for (std::size_t i = 0; i < atoll.size(); ++i) {
        OpRequest request;
        request.kind = OpKind::broadcast;
        request.count = count;
        request.root = atoll[root].id;
        request.in = i == root ? std::as_bytes(std::span(in)) : std::span<const std::byte>{};
        request.out = std::as_writable_bytes(std::span(out[i]));
        ops.push_back(atoll[i].submit(request));
      }
      for (std::size_t i = 0; i < atoll.size(); ++i) {
        EXPECT_EQ(atoll[i].code(ops[i]), Code::ok);
        EXPECT_TRUE(out[i] == in);
      }
    }
  }
}

TEST_P(Members, ABarrierHoldsUntilTheLastHasCome) {
  Atoll atoll(members());
  std::vector<OpId> ops;
  for (std::size_t i = 1; i < atoll.size(); ++i) {
    ops.push_back(atoll[i].barrier());
  }
  for (std::size_t i = 1; i < atoll.size(); ++i) {
    EXPECT_FALSE(atoll[i].engine->wait(ops[i - 1], 0).has_value());
  }
  const OpId last = atoll[0].barrier();
  EXPECT_EQ(atoll[0].code(last), Code::ok);
  for (std::size_t i = 1; i < atoll.size(); ++i) {
    EXPECT_EQ(atoll[i].code(ops[i - 1]), Code::ok);
  }
}

TEST_P(Members, SeveralChannelsRunAtOnce) {
  Atoll atoll(members());
  constexpr Channel kChannels = 5;
  constexpr std::size_t kCount = 50'000;
  std::vector<std::vector<float>> in;
  for (std::size_t i = 0; i < atoll.size(); ++i) {
    in.push_back(vector_of(i, kCount));
  }
  const std::vector<float> sum = sum_of(atoll.size(), kCount);
  std::vector<std::vector<float>> out(atoll.size() * kChannels, std::vector<float>(kCount));
  std::vector<OpId> ops(out.size());
  for (std::size_t i = 0; i < atoll.size(); ++i) {
    for (Channel channel = 0; channel < kChannels; ++channel) {
      // Members submit in different orders: channels are independent.
      const Channel mine = i % 2 == 0 ? channel : kChannels - 1 - channel;
      ops[i * kChannels + mine] =
          atoll[i].all_reduce(in[i], out[i * kChannels + mine], Plan::none, mine);
    }
  }
  for (std::size_t i = 0; i < ops.size(); ++i) {
    EXPECT_EQ(atoll[i / kChannels].code(ops[i]), Code::ok);
    EXPECT_TRUE(out[i] == sum);
  }
}

INSTANTIATE_TEST_SUITE_P(TwoToFive, Members,
                         ::testing::Combine(::testing::Values(2u, 3u, 4u, 5u), ::testing::Bool()));

class Stripes : public ::testing::TestWithParam<unsigned> {};

TEST_P(Stripes, CarryTheSameSum) {
  Atoll atoll(3, [](EngineOptions& options) { options.connections = GetParam(); });
  for (const std::size_t count : {1u, 1'000u, 3'000'000u}) {
    expect_all_reduce(atoll, count, Plan::ring);
    expect_all_reduce(atoll, count, Plan::direct);
  }
}

INSTANTIATE_TEST_SUITE_P(OneTwoFour, Stripes, ::testing::Values(1u, 2u, 4u));

class EngineOps : public OverEachTransport {};
INSTANTIATE_TEST_SUITE_P(Over, EngineOps, kEachTransport, transport_of);
class EngineHandles : public OverEachTransport {};
INSTANTIATE_TEST_SUITE_P(Over, EngineHandles, kEachTransport, transport_of);

OpRequest exchange_of(const PeerId& partner, Sequence tag, const std::vector<float>& in,
                      std::vector<float>& out) {
  OpRequest request;
  request.kind = OpKind::exchange;
  request.partner = partner;
  request.tag = tag;
  request.count = in.size();
  request.in = std::as_bytes(std::span(in));
  request.out = std::as_writable_bytes(std::span(out));
  return request;
}

TEST_P(EngineOps, ExchangeSwapsThePartnersVectors) {
  Atoll atoll(3);
  Sequence tag = 0;
  for (const std::size_t count : {0u, 1u, 3u, 1'000u, 1'000'000u}) {
    const std::vector<float> in_a = vector_of(0, count);
    const std::vector<float> in_b = vector_of(2, count);
    std::vector<float> out_a(count);
    std::vector<float> out_b(count);
    ++tag;
    const OpId a = atoll[0].submit(exchange_of(atoll[2].id, tag, in_a, out_a));
    const OpId b = atoll[2].submit(exchange_of(atoll[0].id, tag, in_b, out_b));
    EXPECT_EQ(atoll[0].code(a), Code::ok);
    EXPECT_EQ(atoll[2].code(b), Code::ok);
    EXPECT_TRUE(out_a == in_b);
    EXPECT_TRUE(out_b == in_a);
  }
}

TEST_P(EngineOps, ExchangeWithALostPartnerFails) {
  Atoll atoll(2);
  const std::vector<float> in(10'000, 1);
  std::vector<float> out(10'000);
  const OpId op = atoll[0].submit(exchange_of(atoll[1].id, 1, in, out));
  atoll.islands.pop_back();
  EXPECT_EQ(atoll[0].code(op), Code::peer_lost);
}

TEST_P(EngineOps, MembersThatDisagreeAllHearOfIt) {
  Atoll atoll(3);
  const std::vector<float> in(100, 1);
  std::vector<std::vector<float>> out(3, std::vector<float>(100));
  const std::vector<float> longer(101, 1);
  std::vector<float> longer_out(101);
  const OpId a = atoll[0].all_reduce(in, out[0]);
  const OpId b = atoll[1].all_reduce(in, out[1]);
  const OpId c = atoll[2].all_reduce(longer, longer_out);
  EXPECT_EQ(atoll[0].code(a), Code::mismatch);
  EXPECT_EQ(atoll[1].code(b), Code::mismatch);
  EXPECT_EQ(atoll[2].code(c), Code::mismatch);
}

TEST_P(EngineOps, ADeadlineFailsTheOpEverywhere) {
  Atoll atoll(2);
  OpRequest request;
  request.kind = OpKind::barrier;
  request.deadline = monotonic_now() + 50 * kMillisecond;
  const OpId a = atoll[0].submit(request);
  const Outcome outcome = atoll[0].finish(a);
  EXPECT_EQ(outcome.code, Code::deadline);
  EXPECT_GE(outcome.elapsed, 40 * kMillisecond);
  EXPECT_LE(outcome.elapsed, 10 * kSecond);
  const OpId b = atoll[1].barrier();
  EXPECT_EQ(atoll[1].code(b), Code::deadline);
}

TEST_P(EngineOps, AnAbortFailsTheOpEverywhere) {
  Atoll atoll(2);
  const OpId a = atoll[0].barrier();
  atoll[0].engine->abort(a);
  const OpId b = atoll[1].barrier();
  EXPECT_EQ(atoll[0].code(a), Code::aborted);
  EXPECT_EQ(atoll[1].code(b), Code::aborted);
}

TEST_P(EngineOps, BadRequestsAreRefusedAtOnce) {
  Island island(1);
  std::vector<float> values(10);
  OpRequest request;
  request.kind = OpKind::all_reduce;
  request.count = 10;
  request.in = std::as_bytes(std::span(values));
  std::vector<float> longer(11);
  request.in = std::as_bytes(std::span(longer).first(10));
  request.out = std::as_writable_bytes(std::span(longer).last(10));
  EXPECT_EQ(island.engine->submit(request).error().code, Code::invalid);  // overlap
  request.in = std::as_bytes(std::span(values));
  request.out = {};
  EXPECT_EQ(island.engine->submit(request).error().code, Code::invalid);
  request.count = UINT64_MAX;
  EXPECT_EQ(island.engine->submit(request).error().code, Code::invalid);
  request = {};
  request.channel = limits::kMaxChannels;
  EXPECT_EQ(island.engine->submit(request).error().code, Code::invalid);
}

TEST_P(EngineOps, AJoinerComesInByADrain) {
  Atoll atoll(2);
  expect_all_reduce(atoll, 1'000, Plan::none);
  Island joiner(3);
  for (auto& island : atoll.islands) {
    island->engine->expect(joiner.id);
    joiner.engine->dial(island->id, "127.0.0.1", island->engine->port());
    island->await_up(joiner.id);
    joiner.await_up(island->id);
  }
  for (auto& island : atoll.islands) {
    island->engine->fence(1, Change::drain);
    EXPECT_EQ(island->await<Fenced>().progress.at(0), (Counters{1, 1, 1}));
  }
  const View view{2, {atoll[0].id, atoll[1].id, joiner.id}};
  atoll[0].install(view, {{0, 1}}, Change::drain);
  atoll[1].install(view, {{0, 1}}, Change::drain);
  joiner.install(view, {{0, 1}}, Change::drain);
  std::vector<Island*> all = {&atoll[0], &atoll[1], &joiner};
  const std::vector<float> in(1'000, 2);
  std::vector<std::vector<float>> out(3, std::vector<float>(1'000));
  std::vector<OpId> ops;
  for (std::size_t i = 0; i < 3; ++i) {
    ops.push_back(all[i]->all_reduce(in, out[i]));
  }
  for (std::size_t i = 0; i < 3; ++i) {
    const Outcome outcome = all[i]->finish(ops[i]);
    EXPECT_EQ(outcome.code, Code::ok);
    EXPECT_EQ(outcome.epoch, 2u);
    EXPECT_EQ(outcome.sequence, 1u);
    EXPECT_TRUE(out[i] == std::vector<float>(1'000, 6));
  }
}

// ---- handles, events, closing --------------------------------------------------------------------

TEST_P(EngineHandles, CloseEndsWhatIsInFlightExactlyOnce) {
  Atoll atoll(2);
  const std::vector<float> in(1'000'000, 1);
  std::vector<std::vector<float>> out(4, std::vector<float>(1'000'000));
  std::vector<std::byte> state(1'000);
  std::vector<OpId> ops;
  for (std::vector<float>& one : out) {  // one in flight, the others behind it
    ops.push_back(atoll[0].all_reduce(in, one));
  }
  const std::vector<float> mine(10, 1);
  std::vector<float> theirs(10);
  ops.push_back(atoll[0].submit(exchange_of(atoll[1].id, 1, mine, theirs)));
  atoll[0].engine->close();
  for (const OpId op : ops) {
    EXPECT_EQ(atoll[0].code(op), Code::closed);
    atoll[0].await<OpEnded>([op](const OpEnded& event) { return event.op == op; });
  }
  EXPECT_TRUE(atoll[0].engine->take_events().empty());
  EXPECT_EQ(atoll[1].await_down(atoll[0].id).reason, LinkEnd::bye);
  // Closed, it refuses, and still tells what was.
  EXPECT_EQ(atoll[0].engine->submit(OpRequest{}).error().code, Code::closed);
  EXPECT_EQ(atoll[0].engine->fetch(atoll[1].id, 0, 0, 0, state, kSecond).error().code,
            Code::closed);
  EXPECT_EQ(atoll[0].engine->stats().links.size(), 1u);
  EXPECT_GT(atoll[0].engine->stats().links[0].sent_bytes, 0u);
  atoll[0].engine->close();
}

TEST_P(EngineHandles, AnUnknownOrReleasedOpIsInvalid) {
  Island island(1);
  EXPECT_EQ(island.code(12'345), Code::invalid);
  const OpId op = island.barrier();
  EXPECT_FALSE(island.engine->wait(op, kMillisecond).has_value());
  island.engine->release(op);
  EXPECT_EQ(island.code(op), Code::invalid);
  island.engine->close();  // it ends nevertheless, and its buffers are said to be free
  island.await<OpEnded>([op](const OpEnded& event) { return event.op == op; });
}

TEST_P(EngineHandles, TheEventDescriptorIsReadableWhileThereAreEvents) {
  Island island(1);
  const auto readable = [&](int milliseconds) {
    pollfd ready{island.engine->event_fd(), POLLIN, 0};
    return ::poll(&ready, 1, milliseconds) == 1;
  };
  EXPECT_FALSE(readable(0));
  island.engine->fence(1, Change::drain);
  EXPECT_TRUE(readable(10'000));
  EXPECT_EQ(island.engine->take_events().size(), 1u);
  EXPECT_FALSE(readable(0));
}

TEST_P(EngineHandles, StatisticsCountBytesAndTime) {
  Atoll atoll(2);
  expect_all_reduce(atoll, 1'000'000, Plan::ring);
  const EngineStats stats = atoll[0].engine->stats();
  EXPECT_EQ(stats.core.ops_committed, 1u);
  ASSERT_EQ(stats.links.size(), 1u);
  const LinkStats& link = stats.links[0];
  EXPECT_EQ(link.peer, atoll[1].id);
  EXPECT_EQ(link.transport, transport());
  EXPECT_EQ(link.connections, transport() == Transport::shm ? 1u : 2u);
  // Half of the vector for the sum, half of it summed; headers and notices are little.
  EXPECT_GE(link.sent_bytes, 4'000'000u);
  EXPECT_LE(link.sent_bytes, 4'010'000u);
  EXPECT_GE(link.received_bytes, 4'000'000u);
  EXPECT_GT(link.sending, 0);
  EXPECT_GT(link.receiving, 0);
  EXPECT_EQ(link.round_trip > 0, transport() != Transport::shm);
  const auto of_codec = [&stats](CodecId id) {
    return stats.core.payload_bytes[static_cast<std::size_t>(id)];
  };
  EXPECT_EQ(of_codec(CodecId::fp32), 4'000'000u);
  EXPECT_EQ(of_codec(CodecId::int8), 0u);
}

TEST_P(EngineHandles, OptionsAreChecked) {
  for (const auto& spoil : std::vector<std::function<void(EngineOptions&)>>{
           [](EngineOptions& it) { it.connections = 17; },
           [](EngineOptions& it) { it.silence = it.heartbeat; },
           [](EngineOptions& it) { it.heartbeat = 0; },
           [](EngineOptions& it) { it.dial_timeout = 0; }}) {
    EngineOptions options = options_of(1);
    spoil(options);
    EXPECT_EQ(Engine::create(options).error().code, Code::invalid);
  }
}

}  // namespace
}  // namespace reef::testing
