// How links come up, and whom the listener shuts out.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/net/socket.h"
#include "island.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

EngineOptions quick(unsigned number) {
  EngineOptions options = options_of(number);
  options.handshake_timeout = 200 * kMillisecond;
  options.dial_timeout = 500 * kMillisecond;
  return options;
}

class Connections : public ::testing::TestWithParam<unsigned> {};

TEST_P(Connections, OfALinkComeUpTogether) {
  EngineOptions options = options_of(2);
  options.connections = GetParam();
  Island old(1);
  Island young(options);
  old.engine->expect(young.id);
  young.engine->dial(old.id, "127.0.0.1", old.engine->port());
  old.await_up(young.id);
  young.await_up(old.id);
  for (Island* island : {&old, &young}) {
    const EngineStats stats = island->engine->stats();
    ASSERT_EQ(stats.links.size(), 1u);
    EXPECT_TRUE(stats.links[0].up);
    EXPECT_EQ(stats.links[0].connections, GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(OneTwoFourSixteen, Connections, ::testing::Values(1u, 2u, 4u, 16u));

class Handshake : public OverEachTransport {};
INSTANTIATE_TEST_SUITE_P(Over, Handshake, kEachTransport, transport_of);

TEST_P(Handshake, AHelloIsHeldUntilThePeerIsExpected) {
  Island old(1);
  Island young(2);
  RawPeer early(old.engine->port());
  early.greet(hello_to(old, 3));
  young.engine->dial(old.id, "127.0.0.1", old.engine->port());
  old.engine->expect(id_of(3));
  EXPECT_TRUE(early.is_acknowledged());
  old.await_up(id_of(3));
  old.engine->expect(young.id);
  old.await_up(young.id);
  young.await_up(old.id);
  EXPECT_EQ(old.engine->stats().rejected_bad_hello, 0u);
}

TEST_P(Handshake, ADialerKeepsTryingUntilSomebodyListens) {
  std::uint16_t port = 0;
  {
    Island before(1);
    port = before.engine->port();
  }
  Island young(2);
  young.engine->dial(id_of(1), "127.0.0.1", port);
  EngineOptions options = options_of(1);
  options.bind_port = port;
  Island old(options);
  old.engine->expect(young.id);
  young.await_up(old.id);
}

TEST_P(Handshake, HostNamesAndIPv6AreDialled) {
  EngineOptions options = options_of(1);
  Island old(options);
  Island young(2);
  old.engine->expect(young.id);
  young.engine->dial(old.id, "localhost", old.engine->port());
  young.await_up(old.id);

  options = options_of(3);
  options.bind_host = "::1";
  auto v6 = Engine::create(options);
  if (!v6.ok()) {
    GTEST_SKIP() << v6.error().message;
  }
  v6.value()->expect(young.id);
  young.engine->dial(id_of(3), "::1", v6.value()->port());
  young.await_up(id_of(3));
}

TEST_P(Handshake, AnUnreachablePeerIsReportedOnceWithAReason) {
  std::uint16_t port = 0;
  {
    Island gone(1);
    port = gone.engine->port();
  }
  Island young(quick(2));
  young.engine->dial(id_of(1), "127.0.0.1", port);
  const LinkDown down = young.await_down(id_of(1));
  EXPECT_EQ(down.reason, LinkEnd::unreachable);
  EXPECT_NE(down.message.find("127.0.0.1:" + std::to_string(port)), std::string::npos);
  EXPECT_NE(down.message.find("Connection refused"), std::string::npos) << down.message;

  young.engine->dial(id_of(1), "no-such-host.invalid", port);
  EXPECT_EQ(young.await_down(id_of(1)).reason, LinkEnd::unreachable);
}

TEST_P(Handshake, APortInUseIsSaidInOneSentence) {
  Island first(1);
  EngineOptions options = options_of(2);
  options.bind_port = first.engine->port();
  const auto second = Engine::create(options);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().message,
            "port " + std::to_string(options.bind_port) + " on 127.0.0.1 is in use");
  EXPECT_EQ(second.error().sys_errno, EADDRINUSE);
}

TEST_P(Handshake, WhenBothDialThereIsOneLink) {
  for (int round = 0; round < 20; ++round) {
    Island a(1);
    Island b(2);
    a.engine->dial(b.id, "127.0.0.1", b.engine->port());
    b.engine->dial(a.id, "127.0.0.1", a.engine->port());
    a.await_up(b.id);
    b.await_up(a.id);
    // A full turn through it: it is the same link on both sides, and it stays.
    View view{1, {a.id, b.id}};
    a.install(view);
    b.install(view);
    const OpId first = a.barrier();
    const OpId second = b.barrier();
    EXPECT_EQ(a.code(first), Code::ok);
    EXPECT_EQ(b.code(second), Code::ok);
    for (const Island* island : {&a, &b}) {
      for (const Event& event : island->engine->take_events()) {
        EXPECT_FALSE(std::holds_alternative<LinkDown>(event)) << std::get<LinkDown>(event).message;
      }
    }
  }
}

// The first addresses lead nowhere, or to somebody else; one listener serves both families.
TEST(Handshake, TheFirstAddressThatWorksWins) {
  EngineOptions options = options_of(1);
  options.bind_host = "::";
  auto made = Engine::create(options);
  if (!made.ok()) {
    GTEST_SKIP() << made.error().message;
  }
  const std::uint16_t port = made.value()->port();
  Island other(9);
  const std::vector<Endpoints> ways = {{{"127.0.0.1", 1}, {"127.0.0.1", port}},
                                       {{"[::1]", 1}, {"[::1]", port}},
                                       {{"127.0.0.1", other.engine->port()}, {"::1", port}},
                                       {{"no-such-host.invalid", 1}, {"localhost", port}}};
  unsigned number = 2;
  for (const Endpoints& endpoints : ways) {
    Island young(++number);
    made.value()->expect(young.id);
    young.engine->dial(id_of(1), endpoints);
    young.await_up(id_of(1));
  }
}

// One side can reach nobody; that the other side can is enough, and no failure is told of.
TEST(Handshake, ADialInVainDoesNotHoldUpTheOtherSides) {
  Island lower(1);
  Island higher(2);
  lower.engine->dial(higher.id, "127.0.0.1", 1);
  higher.engine->dial(lower.id, "127.0.0.1", lower.engine->port());
  lower.await_up(higher.id);
  higher.await_up(lower.id);
  for (const Event& event : lower.engine->take_events()) {
    EXPECT_FALSE(std::holds_alternative<LinkDown>(event));
  }
}

// While a dial of one's own is under way (to a listener that never answers), the other side's HELLO
// waits if this side has the lower id: the dial ends first, and only then is the link accepted.
TEST_P(Handshake, TheLowerIdsDialComesFirst) {
  const Fd mute = std::move(listen_on("127.0.0.1", 0).value());
  EngineOptions options = options_of(1);
  options.dial_timeout = kSecond;
  Island lower(options);
  lower.engine->dial(id_of(2), "127.0.0.1", local_port(mute.get()));
  RawPeer higher(lower.engine->port());
  higher.greet(hello_to(lower, 2));
  EXPECT_EQ(lower.await_down(id_of(2)).reason, LinkEnd::unreachable);
  EXPECT_TRUE(higher.is_acknowledged());
  lower.await_up(id_of(2));
}

TEST_P(Handshake, TheHigherIdsDialGivesWay) {
  const Fd mute = std::move(listen_on("127.0.0.1", 0).value());
  Island higher(3);
  higher.engine->dial(id_of(2), "127.0.0.1", local_port(mute.get()));
  RawPeer lower(higher.engine->port());
  lower.greet(hello_to(higher, 2));
  EXPECT_TRUE(lower.is_acknowledged());
  higher.await_up(id_of(2));
}

TEST_P(Handshake, AnotherJobsSecretIsRefused) {
  Island old(1);
  EngineOptions options = quick(2);
  options.secret[31] = 1;
  Island stranger(options);
  old.engine->expect(stranger.id);
  stranger.engine->dial(old.id, "127.0.0.1", old.engine->port());
  EXPECT_EQ(stranger.await_down(old.id).reason, LinkEnd::unreachable);
  EXPECT_GE(old.engine->stats().rejected_bad_hello, 2u);
  EXPECT_FALSE(old.engine->stats().links.at(0).up);
}

TEST_P(Handshake, HellosThatDoNotFitAreRefusedAndCounted) {
  Island island(1);
  island.engine->expect(id_of(2));
  std::uint64_t expected = 0;
  const auto refused = [&](const Hello& hello) {
    RawPeer raw(island.engine->port());
    raw.greet(hello);
    EXPECT_TRUE(raw.is_closed());
    EXPECT_EQ(island.engine->stats().rejected_bad_hello, ++expected);
  };
  Hello hello = hello_to(island, 2);
  hello.receiver = id_of(9);
  refused(hello);
  hello = hello_to(island, 2);
  hello.secret[5] = 1;
  refused(hello);
  hello = hello_to(island, 2);
  hello.version = kWireVersion + 1;
  refused(hello);
  hello = hello_to(island, 2);
  hello.connections = limits::kMaxConnectionsPerLink + 1;
  refused(hello);
  hello = hello_to(island, 2);
  hello.connection_index = 1;
  refused(hello);
  hello = hello_to(island, 1);  // itself
  refused(hello);
}

TEST_P(Handshake, TheConnectionsOfALinkMustAgree) {
  Island island(1);
  island.engine->expect(id_of(2));
  Hello hello = hello_to(island, 2);
  hello.connections = 2;
  RawPeer first(island.engine->port());
  first.greet(hello);
  RawPeer twin(island.engine->port());
  twin.greet(hello);  // the same index again
  EXPECT_TRUE(twin.is_closed());

  Hello other = hello;
  other.connection_index = 1;
  other.connections = 3;
  RawPeer disagreeing(island.engine->port());
  disagreeing.greet(other);
  EXPECT_TRUE(disagreeing.is_closed());

  other = hello;
  other.connection_index = 1;
  other.nonce = draw_nonce();  // another attempt: it takes the place of the first
  RawPeer anew(island.engine->port());
  anew.greet(other);
  EXPECT_TRUE(first.is_closed());
  EXPECT_EQ(island.engine->stats().rejected_bad_hello, 3u);

  other.connection_index = 0;
  RawPeer sibling(island.engine->port());
  sibling.greet(other);
  EXPECT_TRUE(anew.is_acknowledged());
  EXPECT_TRUE(sibling.is_acknowledged());
  island.await_up(id_of(2));

  RawPeer late(island.engine->port());
  late.greet(other);  // the link with this nonce is up
  EXPECT_TRUE(late.is_closed());
  EXPECT_EQ(island.engine->stats().rejected_bad_hello, 4u);
}

TEST_P(Handshake, AnUnexpectedPeerIsRefusedWhenItsTimeIsOver) {
  Island island(quick(1));
  RawPeer raw(island.engine->port());
  raw.greet(hello_to(island, 2));
  EXPECT_TRUE(raw.is_closed());
  EXPECT_EQ(island.engine->stats().rejected_bad_hello, 1u);
}

TEST_P(Handshake, GarbageIsRefusedAndCounted) {
  Island island(1);
  std::mt19937 random(7);
  std::uniform_int_distribution<int> byte(0, 255);
  std::uint64_t expected = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<std::byte> bytes(200);
    std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<std::byte>(byte(random)); });
    RawPeer raw(island.engine->port());
    raw.say(bytes);
    EXPECT_TRUE(raw.is_closed());
    ++expected;
  }
  const GreetingBytes greeting = encode_greeting(FrameType::hello, hello_to(island, 2));
  for (const std::size_t size : {0u, 1u, 47u, 48u, 151u}) {  // truncated
    RawPeer raw(island.engine->port());
    raw.say(std::span(greeting).first(size));
    raw.shut_writing();
    EXPECT_TRUE(raw.is_closed());
    ++expected;
  }
  for (const FrameType type : {FrameType::hello_ack, FrameType::heartbeat, FrameType::bye}) {
    FrameHeader header;
    header.type = type;
    header.length = type == FrameType::hello_ack ? 104 : 0;
    RawPeer raw(island.engine->port());
    raw.say(header);
    EXPECT_TRUE(raw.is_closed());
    ++expected;
  }
  GreetingBytes absurd = greeting;
  absurd[15] = std::byte{0xff};  // a length of 4 GiB
  RawPeer raw(island.engine->port());
  raw.say(absurd);
  EXPECT_TRUE(raw.is_closed());
  EXPECT_EQ(island.engine->stats().rejected_garbage, expected + 1);
}

TEST_P(Handshake, IdleStrangersAreBoundedAndTimedOut) {
  EngineOptions options = options_of(1);
  options.handshake_timeout = kSecond;
  Island island(options);
  std::vector<RawPeer> strangers;
  for (std::size_t i = 0; i < limits::kMaxPendingHandshakes + 36; ++i) {
    strangers.emplace_back(island.engine->port());
  }
  for (const RawPeer& stranger : strangers) {
    EXPECT_TRUE(stranger.is_closed());
  }
  const EngineStats stats = island.engine->stats();
  EXPECT_EQ(stats.rejected_timeout + stats.rejected_overload, strangers.size());
  EXPECT_GE(stats.rejected_overload, 1u);
  EXPECT_GE(stats.rejected_timeout, limits::kMaxPendingHandshakes);
}

}  // namespace
}  // namespace reef::testing
