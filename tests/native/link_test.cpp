// How links end: each reason, once, and what may follow.
#include <gtest/gtest.h>

#include <vector>

#include "island.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

class LinkEnds : public OverEachTransport {};
INSTANTIATE_TEST_SUITE_P(Over, LinkEnds, kEachTransport, transport_of);

TEST_P(LinkEnds, ByeIsHeardWhenThePeerClosesPolitely) {
  Island old(1);
  {
    Island young(2);
    old.engine->expect(young.id);
    young.engine->dial(old.id, "127.0.0.1", old.engine->port());
    old.await_up(young.id);
    young.await_up(old.id);
  }
  EXPECT_EQ(old.await_down(id_of(2)).reason, LinkEnd::bye);
}

TEST_P(LinkEnds, DropSaysByeAndForgets) {
  Island old(1);
  Island young(2);
  for (int round = 0; round < 5; ++round) {  // a dropped peer may come again
    old.engine->expect(young.id);
    young.engine->dial(old.id, "127.0.0.1", old.engine->port());
    old.await_up(young.id);
    young.await_up(old.id);
    young.engine->drop(old.id);
    EXPECT_EQ(young.await_down(old.id).reason, LinkEnd::dropped);
    EXPECT_EQ(old.await_down(young.id).reason, LinkEnd::bye);
    EXPECT_TRUE(young.engine->stats().links.empty());
    EXPECT_EQ(old.engine->stats().links.size(), 1u);
  }
  old.engine->drop(young.id);
  EXPECT_TRUE(old.engine->stats().links.empty());
}

TEST_P(LinkEnds, DropCancelsADial) {
  Island young(2);
  young.engine->dial(id_of(1), "127.0.0.1", 1);
  young.engine->drop(id_of(1));
  EXPECT_EQ(young.await_down(id_of(1)).reason, LinkEnd::dropped);
}

TEST_P(LinkEnds, ResetWhenAConnectionCloses) {
  Island island(1);
  for (const bool politely : {true, false}) {
    RawPeer raw = linked_raw_peer(island, 2);
    politely ? raw.hang_up() : raw.reset();
    EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::reset);
  }
}

TEST_P(LinkEnds, OneConnectionThatIsNotReplacedEndsTheLink) {
  EngineOptions options = options_of(1);
  options.silence = 600 * kMillisecond;
  Island island(options);
  island.engine->expect(id_of(2));
  Hello hello = hello_to(island, 2);
  hello.connections = 2;
  RawPeer first(island.engine->port());
  RawPeer second(island.engine->port());
  first.greet(hello);
  hello.connection_index = 1;
  second.greet(hello);
  island.await_up(id_of(2));
  (void)first.hear(kGreetingBytes);
  second.hang_up();
  while (island.engine->stats().links.at(0).up) {  // the other one lives on
    first.say(FrameHeader{});
    (void)first.hear(1, 10 * kMillisecond);
  }
  const LinkDown down = island.await_down(id_of(2));
  EXPECT_EQ(down.reason, LinkEnd::reset);
  EXPECT_NE(down.message.find("no other connection took its place"), std::string::npos)
      << down.message;
}

TEST_P(LinkEnds, ByeCountsOnlyOnceItWasSaidOnAllConnections) {
  Island island(1);
  island.engine->expect(id_of(2));
  Hello hello = hello_to(island, 2);
  hello.connections = 2;
  RawPeer first(island.engine->port());
  RawPeer second(island.engine->port());
  first.greet(hello);
  hello.connection_index = 1;
  second.greet(hello);
  island.await_up(id_of(2));
  FrameHeader bye;
  bye.type = FrameType::bye;
  first.say(bye);
  first.hang_up();
  // What was sent before, on the other connection, still arrives: a request is answered.
  FrameHeader request;
  request.type = FrameType::state_request;
  request.length = 8;
  request.epoch = UINT64_MAX;
  std::byte length[8]{};
  (void)second.hear(kGreetingBytes);
  second.say(request, length);
  const auto answer = parse_header(second.hear(kHeaderBytes));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer.value().type, FrameType::state_nack);
  second.say(bye);
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::bye);
}

TEST_P(LinkEnds, ProtocolWhenAPeerBreaksTheFormat) {
  Island island(1);
  std::vector<std::vector<std::byte>> offences;
  FrameHeader header;
  const auto offend = [&](const FrameHeader& with, std::size_t payload = 0) {
    const HeaderBytes bytes = encode_header(with);
    offences.emplace_back(bytes.begin(), bytes.end());
    offences.back().resize(kHeaderBytes + payload);
  };
  offences.emplace_back(48, std::byte{0x5a});  // no magic
  header.type = FrameType::data;
  header.length = UINT32_MAX;
  offend(header);
  header.type = FrameType::heartbeat;
  header.length = 1;
  offend(header, 1);
  header.type = FrameType::hello;
  header.length = 104;
  offend(header, 104);
  header.type = FrameType::start;
  header.length = 48;  // its description is all zeros
  header.epoch = offences.size() + 1;  // the view that is installed when its turn comes
  offend(header, 48);
  std::uint64_t expected = 0;
  for (const auto& offence : offences) {
    RawPeer raw = linked_raw_peer(island, 2);
    island.engine->install(View{++expected, {island.id, id_of(2)}}, {}, Change::abort);
    island.await<Installed>();
    raw.say(offence);
    const LinkDown down = island.await_down(id_of(2));
    EXPECT_EQ(down.reason, LinkEnd::protocol) << down.message;
    EXPECT_EQ(island.engine->stats().protocol_errors, expected);
    EXPECT_TRUE(raw.is_closed());
  }
}

TEST_P(LinkEnds, SilentWhenNothingIsHeard) {
  EngineOptions options = options_of(1);
  options.heartbeat = 50 * kMillisecond;
  options.silence = 400 * kMillisecond;
  Island island(options);
  RawPeer raw = linked_raw_peer(island, 2);
  // A heartbeat each turn keeps it up for longer than the silence allowed.
  FrameHeader heartbeat;
  for (int i = 0; i < 20; ++i) {
    raw.say(heartbeat);
    EXPECT_EQ(raw.hear(kHeaderBytes).size(), kHeaderBytes);  // the island's own heartbeat
  }
  EXPECT_TRUE(island.engine->stats().links.at(0).up);
  const Nanos before = monotonic_now();
  const LinkDown down = island.await_down(id_of(2));
  EXPECT_EQ(down.reason, LinkEnd::silent) << down.message;
  EXPECT_LE(monotonic_now() - before, options.silence + options.heartbeat + 5 * kSecond);
}

TEST_P(LinkEnds, AFreshLinkMayFollow) {
  Island island(1);
  for (int round = 0; round < 3; ++round) {
    RawPeer raw = linked_raw_peer(island, 2);
    raw.reset();
    EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::reset);
  }
  Island young(2);
  young.engine->dial(island.id, "127.0.0.1", island.engine->port());
  young.await_up(island.id);
  island.await_up(young.id);
}

// A new attempt waits while the old link is up, and is taken as soon as that is lost.
TEST_P(LinkEnds, ANewAttemptTakesOverWhenTheOldLinkIsLost) {
  Island island(1);
  RawPeer old = linked_raw_peer(island, 2);
  RawPeer anew(island.engine->port());
  anew.greet(hello_to(island, 2));
  old.reset();
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::reset);
  EXPECT_TRUE(anew.is_acknowledged());
  island.await_up(id_of(2));
}

}  // namespace
}  // namespace reef::testing
