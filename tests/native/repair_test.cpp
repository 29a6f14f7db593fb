// Connections that are lost inside a link: the link goes on, and no bit differs.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "certificates.h"
#include "island.h"
#include "proxy.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

std::vector<float> values_of(unsigned seed, std::size_t count) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) {
    value = static_cast<float>(random()) / 1e6f - 2'000;
  }
  return values;
}

const LinkStats& stats_to(const EngineStats& stats, const PeerId& peer) {
  return *std::find_if(stats.links.begin(), stats.links.end(),
                       [&](const LinkStats& link) { return link.peer == peer; });
}

void expect_no_link_down(Island& island) {
  for (const Event& event : island.engine->take_events()) {
    EXPECT_FALSE(std::holds_alternative<LinkDown>(event)) << std::get<LinkDown>(event).message;
  }
}

// `young` dials `old` through a proxy.
struct Pair {
  explicit Pair(const Proxy::Habits& habits, const std::function<void(EngineOptions&)>& adjust = {})
      : old(adjusted(1, adjust)), young(adjusted(2, adjust)), proxy(old.engine->port(), habits) {
    old.engine->expect(young.id);
    young.engine->dial(old.id, "127.0.0.1", proxy.port());
    old.await_up(young.id);
    young.await_up(old.id);
    const View view{1, {old.id, young.id}};
    old.install(view);
    young.install(view);
  }
  static EngineOptions adjusted(unsigned number, const std::function<void(EngineOptions&)>& adjust) {
    EngineOptions options = options_of(number);
    options.heartbeat = 50 * kMillisecond;
    options.repair_grace = 10 * kSecond;
    if (adjust) {
      adjust(options);
    }
    return options;
  }
  // All-reduces at once on several channels, with both plans, compared with exact sums.
  void reduce(unsigned seed, std::size_t count) {
    constexpr Channel kChannels = 3;
    std::vector<std::vector<float>> in_old;
    std::vector<std::vector<float>> in_young;
    std::vector<std::vector<float>> out_old(kChannels, std::vector<float>(count));
    std::vector<std::vector<float>> out_young(kChannels, std::vector<float>(count));
    std::vector<std::pair<OpId, OpId>> ops;
    for (Channel channel = 0; channel < kChannels; ++channel) {
      in_old.push_back(values_of(seed * 10 + channel, count));
      in_young.push_back(values_of(seed * 10 + channel + 5, count));
    }
    for (Channel channel = 0; channel < kChannels; ++channel) {
      const Plan plan = channel % 2 == 0 ? Plan::ring : Plan::direct;
      const OpId first = old.all_reduce(in_old[channel], out_old[channel], plan, channel);
      const OpId second = young.all_reduce(in_young[channel], out_young[channel], plan, channel);
      ops.emplace_back(first, second);
    }
    for (Channel channel = 0; channel < kChannels; ++channel) {
      EXPECT_EQ(old.code(ops[channel].first), Code::ok);
      EXPECT_EQ(young.code(ops[channel].second), Code::ok);
      std::vector<float> sum(count);
      for (std::size_t i = 0; i < count; ++i) {
        sum[i] = in_old[channel][i] + in_young[channel][i];
      }
      EXPECT_TRUE(out_old[channel] == sum);
      EXPECT_TRUE(out_young[channel] == sum);
    }
  }
  void expect_repaired(int least_cuts) {
    EXPECT_GE(proxy.cuts(), least_cuts);
    expect_no_link_down(old);
    expect_no_link_down(young);
    EXPECT_GE(stats_to(old.engine->stats(), young.id).repairs, 1u);
    EXPECT_GE(stats_to(young.engine->stats(), old.id).repairs, 1u);
    EXPECT_EQ(old.engine->stats().protocol_errors + young.engine->stats().protocol_errors, 0u);
    EXPECT_EQ(old.engine->stats().core.ops_rerun, 0u);
  }

  Island old;
  Island young;
  Proxy proxy;
};

class Cuts : public ::testing::TestWithParam<std::tuple<unsigned, int>> {};

TEST_P(Cuts, InLargeAllReducesChangeNoBit) {
  const auto [connections, all_at_once] = GetParam();
  Pair pair({.seed = connections * 7u, .cut_every = 1u << 20, .all_at_once = all_at_once},
            [count = connections](EngineOptions& options) { options.connections = count; });
  for (unsigned round = 0; round < 6; ++round) {
    pair.reduce(round, 700'001);
  }
  pair.expect_repaired(10);
}

INSTANTIATE_TEST_SUITE_P(OneTwoFour, Cuts,
                         ::testing::Combine(::testing::Values(1u, 2u, 4u),
                                            ::testing::Values(0, 1, 3)));

TEST(Repair, WorksOverTls) {
  const Identity job = authority("job");
  const Identity member("member", {.issuer = &job});
  Pair pair({.seed = 5, .cut_every = 1u << 20, .all_at_once = 4},
            [&](EngineOptions& options) { options.tls = tls_of(member, job); });
  for (unsigned round = 0; round < 2; ++round) {
    pair.reduce(round, 700'001);
  }
  pair.expect_repaired(5);
}

// One side asks, both have them; each damaged frame costs its connection, and nothing else.
TEST(Repair, DamagedFramesAreNoticedAndSentAgain) {
  Proxy::Habits habits{.seed = 11};
  habits.corrupt_every = 40;
  Pair pair(habits, [](EngineOptions& options) { options.checksums = options.self == id_of(2); });
  for (unsigned round = 0; round < 4; ++round) {
    pair.reduce(round, 700'001);
  }
  EXPECT_GE(pair.proxy.corruptions(), 5);
  EXPECT_GE(stats_to(pair.old.engine->stats(), pair.young.id).damaged_frames, 1u);
  EXPECT_GE(stats_to(pair.young.engine->stats(), pair.old.id).damaged_frames, 1u);
  pair.expect_repaired(0);
}

TEST(Repair, StateIsFetchedWholeOverCuts) {
  Pair pair({.seed = 9, .cut_every = 1u << 20, .all_at_once = 3});
  std::vector<float> state = values_of(1, 3'000'000);
  Engine::Published published;
  published.revision = 4;
  published.buffers.push_back(std::as_bytes(std::span(state)));
  pair.old.engine->publish(published);
  for (int round = 0; round < 3; ++round) {
    std::vector<float> copy(state.size());
    auto op = pair.young.engine->fetch(pair.old.id, 4, 0, 0, std::as_writable_bytes(std::span(copy)),
                                       kPatience);
    ASSERT_TRUE(op.ok());
    const Outcome outcome = pair.young.finish(op.value());
    EXPECT_EQ(outcome.code, Code::ok) << outcome.message;
    EXPECT_TRUE(copy == state);
  }
  pair.expect_repaired(5);
}

// While the only way to the peer is closed, one of two connections carries everything.
TEST(Repair, AnIdleLinkIsMendedToo) {
  Pair pair({});
  for (std::uint64_t round = 1; round <= 5; ++round) {
    pair.proxy.cut_all();
    pair.reduce(static_cast<unsigned>(round), 1'000);
    while (stats_to(pair.young.engine->stats(), pair.old.id).repairs < 2 * round) {
    }
  }
  expect_no_link_down(pair.old);
  expect_no_link_down(pair.young);
}

TEST(Repair, ByeIsHeardAfterRepairs) {
  Pair pair({});
  pair.proxy.cut_all();
  pair.reduce(1, 100'000);
  pair.young.engine->drop(pair.old.id);
  EXPECT_EQ(pair.young.await_down(pair.old.id).reason, LinkEnd::dropped);
  EXPECT_EQ(pair.old.await_down(pair.young.id).reason, LinkEnd::bye);
}

TEST(Repair, IsGivenUpWhenThePeerCannotBeReached) {
  Pair pair({}, [](EngineOptions& options) {
    options.silence = 700 * kMillisecond;
    options.repair_grace = 200 * kMillisecond;
  });
  pair.proxy.refuse();
  pair.proxy.cut_all();
  EXPECT_EQ(pair.old.await_down(pair.young.id).reason, LinkEnd::reset);
  const LinkDown down = pair.young.await_down(pair.old.id);
  EXPECT_EQ(down.reason, LinkEnd::reset);
  EXPECT_NE(down.message.find("no other connection took its place"), std::string::npos)
      << down.message;
}

// The other end has dropped the link while this one was cut off: it says so, and that is the end.
TEST(Repair, ALinkThatIsOverThereIsNotMended) {
  Pair pair({});
  pair.old.engine->drop(pair.young.id);
  EXPECT_EQ(pair.old.await_down(pair.young.id).reason, LinkEnd::dropped);
  EXPECT_EQ(pair.young.await_down(pair.old.id).reason, LinkEnd::bye);

  Pair other({});
  other.proxy.cut_all();
  other.old.engine->drop(other.young.id);
  (void)other.old.await_down(other.young.id);
  const LinkDown down = other.young.await_down(other.old.id);  // long before `silence`
  EXPECT_TRUE(down.reason == LinkEnd::reset || down.reason == LinkEnd::bye) << down.message;
}

// The side that was dialled knows where the peer listens, and has the only open way.
TEST(Repair, TheOtherSideDialsWhenItKnowsWhere) {
  Island old(Pair::adjusted(1, {}));
  Island young(Pair::adjusted(2, {}));
  Proxy proxy(old.engine->port(), {});
  old.engine->expect(young.id, {{"127.0.0.1", young.engine->port()}});
  young.engine->dial(old.id, "127.0.0.1", proxy.port());
  old.await_up(young.id);
  young.await_up(old.id);
  const View view{1, {old.id, young.id}};
  old.install(view);
  young.install(view);
  proxy.refuse();
  proxy.cut_all();
  const OpId first = old.barrier();
  const OpId second = young.barrier();
  EXPECT_EQ(old.code(first), Code::ok);
  EXPECT_EQ(young.code(second), Code::ok);
  expect_no_link_down(old);
  expect_no_link_down(young);
}

FrameHeader data_of(std::uint64_t offset) {
  FrameHeader header;
  header.type = FrameType::data;
  header.offset = offset;
  header.epoch = 9;  // of a view to come: kept
  return header;
}

Hello repair_of(const Hello& first, std::uint64_t received, std::uint32_t attempt) {
  Hello hello = first;
  hello.flags = kHelloRepair;
  hello.received = received;
  hello.attempt = attempt;
  return hello;
}

Hello acknowledgement(const RawPeer& raw) {
  const auto ack = parse_greeting(FrameType::hello_ack, raw.hear(kGreetingBytes));
  EXPECT_TRUE(ack.ok());
  return ack ? ack.value() : Hello{};
}

TEST(Repair, TheHandshakeSaysWhatHasArrivedWhole) {
  Island island(Pair::adjusted(1, {}));
  island.engine->expect(id_of(2));
  const Hello hello = hello_to(island, 2);
  RawPeer raw(island.engine->port());
  raw.greet(hello);
  EXPECT_EQ(acknowledgement(raw).received, 0u);
  island.await_up(id_of(2));
  raw.say(data_of(0));
  raw.say(FrameHeader{});  // a heartbeat, which does not count
  raw.say(data_of(1));
  FrameHeader half = data_of(2);
  half.length = 100;
  raw.say(half, std::vector<std::byte>(50));
  raw.hang_up();
  RawPeer next(island.engine->port());
  next.greet(repair_of(hello, 0, 1));
  const Hello ack = acknowledgement(next);
  EXPECT_EQ(ack.flags, kHelloRepair);
  EXPECT_EQ(ack.received, 2u);
  EXPECT_EQ(ack.attempt, 1u);
  // An attempt that is not newer is shut out, and harms nothing.
  RawPeer old_attempt(island.engine->port());
  old_attempt.greet(repair_of(hello, 0, 1));
  EXPECT_TRUE(old_attempt.is_closed());
  // Another link's, or another peer's, is told that it is over.
  for (const bool other_nonce : {true, false}) {
    Hello strange = repair_of(hello, 0, 2);
    if (other_nonce) {
      strange.nonce[0] ^= 1;
    } else {
      strange.receiver = id_of(77);
    }
    RawPeer stranger(island.engine->port());
    stranger.greet(strange);
    EXPECT_EQ(acknowledgement(stranger).flags, kHelloRepair | kHelloGone);
    EXPECT_TRUE(stranger.is_closed());
  }
  EXPECT_EQ(stats_to(island.engine->stats(), id_of(2)).repairs, 1u);
  // A count that cannot be breaks the protocol.
  RawPeer liar(island.engine->port());
  liar.greet(repair_of(hello, 1'000, 3));
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::protocol);
}

// A path that lets handshakes through and nothing after them: no number of them keeps the link up.
TEST(Repair, HandshakesAloneKeepNoLinkUp) {
  Island island(Pair::adjusted(1, [](EngineOptions& options) { options.silence = kSecond / 2; }));
  island.engine->expect(id_of(2));
  const Hello hello = hello_to(island, 2);
  std::vector<RawPeer> connections;
  connections.emplace_back(island.engine->port());
  connections.back().greet(hello);
  EXPECT_EQ(acknowledgement(connections.back()).flags, 0u);
  island.await_up(id_of(2));
  const Nanos deadline = monotonic_now() + kPatience;
  for (std::uint32_t attempt = 1;; ++attempt) {
    ASSERT_LT(monotonic_now(), deadline);
    connections.emplace_back(island.engine->port());
    connections.back().greet(repair_of(hello, 0, attempt));
    if (acknowledgement(connections.back()).flags == (kHelloRepair | kHelloGone) ||
        connections.back().hear(kHeaderBytes).empty()) {  // else it is a heartbeat
      break;
    }
  }
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::silent);
}

// Listens where a connection does not come about before somebody is accepted: its queue is full.
class Busy {
 public:
  Busy() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(::listen(fd_.get(), 0), 0);
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &size), 0);
    port_ = ntohs(at.sin_port);
    filler_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(filler_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
  }
  [[nodiscard]] std::uint16_t port() const { return port_; }
  // Waits until somebody has dialled, in vain so far.
  void await_dialled() const {
    char wanted[32];  // remote address and state, as /proc has them: SYN_SENT
    std::snprintf(wanted, sizeof wanted, "0100007F:%04X 02", port_);
    const Nanos deadline = monotonic_now() + kPatience;
    while (monotonic_now() < deadline) {
      std::ifstream sockets("/proc/net/tcp");
      for (std::string line; std::getline(sockets, line);) {
        if (line.find(wanted) != std::string::npos) return;
      }
    }
    ADD_FAILURE() << "nobody dials";
  }
  // Makes room, and takes the connection that comes then.
  Fd open() {
    (void)accept();  // the filler
    return accept();
  }

 private:
  [[nodiscard]] Fd accept() const {
    pollfd ready{fd_.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&ready, 1, static_cast<int>(kPatience / kMillisecond)), 1);
    return Fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  Fd fd_;
  Fd filler_;
  std::uint16_t port_ = 0;
};

// What a HELLO says has been received must still hold when it is heard. So of two addresses that answer
// at the same time only one hears a HELLO that counts: the attempt that said it before is over.
TEST(Repair, OneHelloAtATime) {
  Busy one;
  Busy other;
  EngineOptions options = Pair::adjusted(1, {});
  options.silence = options.handshake_timeout = 10 * kPatience;  // nothing else ends an attempt
  Island island(options);
  island.engine->expect(id_of(2), {{"127.0.0.1", one.port()}, {"127.0.0.1", other.port()}});
  RawPeer raw(island.engine->port());
  raw.greet(hello_to(island, 2));
  ASSERT_TRUE(raw.is_acknowledged());
  island.await_up(id_of(2));
  raw.hang_up();
  one.await_dialled();
  other.await_dialled();
  // Both are dialled while neither answers; then one hears its HELLO, and only then the other.
  const RawPeer first(one.open());
  const auto hello = parse_greeting(FrameType::hello, first.hear(kGreetingBytes));
  ASSERT_TRUE(hello.ok());
  const RawPeer second(other.open());
  const auto later = parse_greeting(FrameType::hello, second.hear(kGreetingBytes));
  ASSERT_TRUE(later.ok());
  EXPECT_GT(later.value().attempt, hello.value().attempt);
  EXPECT_TRUE(first.is_closed());
}

TEST(Repair, AnAcknowledgementOfFramesNeverSentEndsTheLink) {
  Island island(1);
  RawPeer raw = linked_raw_peer(island, 2);
  FrameHeader heartbeat;
  heartbeat.sequence = 5;
  raw.say(heartbeat);
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::protocol);
}

}  // namespace
}  // namespace reef::testing
