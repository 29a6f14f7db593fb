// The poller's and a connection's corner cases, over socket pairs and through shared memory.
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/net/poller.h"
#include "atoll/net/shm_connection.h"
#include "atoll/net/socket_stream.h"
#include "atoll/net/stream_connection.h"
#include "local_channels.h"
#include "transports.h"

namespace reef {
namespace {

using testing::kEachTransport;
using testing::local_channels;
using testing::OverEachTransport;
using testing::transport_of;

std::pair<Fd, Fd> socket_pair() {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  return {Fd(ends[0]), Fd(ends[1])};
}

struct Listener : Ready {
  std::function<void()> heard;
  int count = 0;
  void on_ready(std::uint32_t) override {
    ++count;
    if (heard) {
      heard();
    }
  }
};

TEST(PollerEvents, OfEndedRegistrationsAreNotDelivered) {
  auto poller = std::move(Poller::create().value());
  auto [near_a, far_a] = socket_pair();
  auto [near_b, far_b] = socket_pair();
  Listener a;
  Listener b;
  Listener fresh;
  Registration on_a = std::move(poller->add(near_a.get(), EPOLLIN, a).value());
  Registration on_b = std::move(poller->add(near_b.get(), EPOLLIN, b).value());
  Registration on_fresh;
  // Whichever is called first ends the other, and puts a new one into its slot.
  a.heard = [&] {
    on_b.reset();
    on_fresh = std::move(poller->add(near_b.get(), EPOLLIN, fresh).value());
  };
  b.heard = [&] {
    on_a.reset();
    on_fresh = std::move(poller->add(near_a.get(), EPOLLIN, fresh).value());
  };
  ASSERT_EQ(::write(far_a.get(), "x", 1), 1);
  ASSERT_EQ(::write(far_b.get(), "x", 1), 1);
  int dispatched = 0;
  poller->wait(kSecond, [&] { ++dispatched; });
  EXPECT_EQ(a.count + b.count, 1);
  EXPECT_EQ(fresh.count, 0);
  EXPECT_EQ(dispatched, 1);
  a.heard = b.heard = nullptr;
  poller->wait(kSecond, [] {});
  EXPECT_EQ(fresh.count, 1);
}

TEST(PollerEvents, AnObjectMayEndItself) {
  auto poller = std::move(Poller::create().value());
  auto [near, far] = socket_pair();
  Listener self;
  Registration registration = std::move(poller->add(near.get(), EPOLLIN, self).value());
  self.heard = [&] {
    registration.reset();
    near.reset();
  };
  ASSERT_EQ(::write(far.get(), "x", 1), 1);
  poller->wait(kSecond, [] {});
  poller->wait(0, [] {});
  EXPECT_EQ(self.count, 1);
}

TEST(PollerEvents, ATimeoutPasses) {
  auto poller = std::move(Poller::create().value());
  const Nanos before = monotonic_now();
  poller->wait(5 * kMillisecond, [] {});
  EXPECT_GE(monotonic_now() - before, 5 * kMillisecond);
}

// ---- one connection ------------------------------------------------------------------------------

// Stands for the link on both ends: hands out frames, and notes what arrives.
struct Owner : ConnectionOwner {
  std::deque<OutFrame> outgoing;
  std::vector<std::pair<FrameHeader, std::vector<std::byte>>> arrived;
  std::function<Destination(const FrameHeader&)> where;
  std::size_t received_bytes = 0;
  int depth = 0;
  int thrown = 0;
  bool ended = false;

  Destination place(const FrameHeader& header) override {
    return where ? where(header) : Destination{};
  }
  Status deliver(Connection&, const FrameHeader& header, std::span<const std::byte> payload,
                 bool thrown_away) override {
    if (thrown_away) {
      ++thrown;
      return Unit{};
    }
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(payload.data()) % 16, where ? 0u : 0u);
    arrived.emplace_back(header, std::vector<std::byte>(payload.begin(), payload.end()));
    return Unit{};
  }
  void displaced(const FrameHeader&) override {}
  void wrote(Connection&, OutFrame) override {}
  bool take(Connection&, OutFrame& frame) override {
    if (outgoing.empty()) {
      return false;
    }
    frame = std::move(outgoing.front());
    outgoing.pop_front();
    return true;
  }
  void ready(Connection&, std::uint32_t) override {}
  void received(std::size_t bytes) override { received_bytes += bytes; }
  void sent(std::size_t) override {}
  void inside_payload(bool inside) override { depth += inside ? 1 : -1; }
  [[nodiscard]] bool over() const override { return ended; }
};

class OneConnection : public OverEachTransport {
 protected:
  OneConnection() {
    auto [a, b] = connection_pair();
    sending = start(std::move(a), sender);
    receiving = start(std::move(b), receiver);
  }
  static std::unique_ptr<Connection> over(Fd socket) {
    return std::make_unique<StreamConnection>(std::make_unique<SocketStream>(std::move(socket)));
  }
  static std::pair<std::unique_ptr<Connection>, std::unique_ptr<Connection>> connection_pair() {
    if (transport() == Transport::shm) {
      auto [a, b] = local_channels();
      return {std::make_unique<ShmConnection>(std::move(a)),
              std::make_unique<ShmConnection>(std::move(b))};
    }
    auto [a, b] = socket_pair();
    return {over(std::move(a)), over(std::move(b))};
  }
  std::unique_ptr<Connection> start(std::unique_ptr<Connection> connection,
                                    ConnectionOwner& owner) {
    EXPECT_TRUE(connection->start(*poller, owner).ok());
    return connection;
  }
  void queue(OpId op, std::span<const std::byte> payload, std::uint64_t offset = 0) {
    FrameHeader header;
    header.type = FrameType::data;
    header.length = static_cast<std::uint32_t>(payload.size());
    header.offset = offset;
    OutFrame frame;
    frame.header = encode_header(header);
    frame.payload = payload;
    frame.op = op;
    sender.outgoing.push_back(std::move(frame));
  }
  // Both ends in turn until nothing moves any more.
  void run() {
    std::size_t before = 0;
    do {
      before = receiver.received_bytes;
      ASSERT_TRUE(sending->flush().ok());
      ASSERT_TRUE(receiving->receive().ok());
    } while (receiver.received_bytes != before || sending->writing());
  }
  static std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
    std::vector<std::byte> values(bytes);
    for (std::size_t i = 0; i < bytes; ++i) {
      values[i] = static_cast<std::byte>(i * 31 + i / 255 + seed);
    }
    return values;
  }

  std::unique_ptr<Poller> poller = std::move(Poller::create().value());
  Owner sender;
  Owner receiver;
  std::unique_ptr<Connection> sending;
  std::unique_ptr<Connection> receiving;
};

INSTANTIATE_TEST_SUITE_P(Over, OneConnection, kEachTransport, transport_of);

TEST_P(OneConnection, FramesOfAllSizesArriveInOrder) {
  std::vector<std::vector<std::byte>> payloads;
  for (const std::size_t size : {0u, 1u, 3u, 4u, 47u, 48u, 1'000u, 16'335u, 16'336u, 16'337u,
                                 16'384u, 70'001u, 1'000'000u, 4'194'304u}) {
    for (unsigned copy = 0; copy < 3; ++copy) {
      payloads.push_back(pattern(size, copy));
    }
  }
  for (const auto& payload : payloads) {
    queue(1, payload);
  }
  run();
  ASSERT_EQ(receiver.arrived.size(), payloads.size());
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    EXPECT_TRUE(receiver.arrived[i].second == payloads[i]) << i;
  }
  EXPECT_EQ(receiver.depth, 0);
}

// Rings may have other lengths than this side makes: the smallest there is.
TEST_P(OneConnection, FramesOfAllSizesPassThroughASmallRing) {
  if (transport() != Transport::shm) {
    GTEST_SKIP() << "only shared memory has rings";
  }
  auto [a, b] = local_channels(ShmMemory::kMinCapacity);
  sending = start(std::make_unique<ShmConnection>(std::move(a)), sender);
  receiving = start(std::make_unique<ShmConnection>(std::move(b)), receiver);
  std::vector<std::vector<std::byte>> payloads;
  for (const std::size_t size : {0u, 1u, 255u, 257u, 32'767u, 32'768u, 32'769u, 65'536u, 1'000'003u}) {
    payloads.push_back(pattern(size, 3));
    payloads.push_back(pattern(size, 4));
  }
  for (const auto& payload : payloads) {
    queue(1, payload);
  }
  run();
  ASSERT_EQ(receiver.arrived.size(), payloads.size());
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    EXPECT_TRUE(receiver.arrived[i].second == payloads[i]) << i;
  }
}

TEST_P(OneConnection, PayloadsGoStraightToTheirPlace) {
  const std::vector<std::byte> source = pattern(3'000'000, 5);
  std::vector<std::byte> target(source.size());
  receiver.where = [&](const FrameHeader& header) {
    return Destination{std::span(target).subspan(header.offset, header.length), 9};
  };
  for (std::size_t at = 0; at < source.size(); at += 100'000) {
    queue(1, std::span(source).subspan(at, 100'000), at);
  }
  run();
  EXPECT_EQ(receiver.arrived.size(), 30u);
  EXPECT_TRUE(target == source);
}

// The sender's memory is reused after forget(): the frame that is half out goes on from a copy, the
// frames behind it are gone, and the stream stays in step.
TEST_P(OneConnection, AForgottenOpsHalfSentFrameIsFinishedFromACopy) {
  std::vector<std::byte> doomed = pattern(4u << 20, 1);
  const std::vector<std::byte> original = doomed;
  const std::vector<std::byte> after = pattern(1'000, 2);
  queue(1, doomed);
  ASSERT_TRUE(sending->flush().ok());
  ASSERT_TRUE(sending->writing()) << "the socket took it all";
  queue(2, after);
  sending->forget(1);
  std::fill(doomed.begin(), doomed.end(), std::byte{0xee});
  run();
  ASSERT_EQ(receiver.arrived.size(), 2u);
  EXPECT_TRUE(receiver.arrived[0].second == original);
  EXPECT_TRUE(receiver.arrived[1].second == after);
}

TEST_P(OneConnection, AForgottenOpsUnsentFramesAreDropped) {
  const std::vector<std::byte> large = pattern(4u << 20, 1);
  const std::vector<std::byte> small = pattern(100, 2);
  for (int i = 0; i < 10; ++i) {
    queue(1, small);
  }
  queue(2, large);
  ASSERT_TRUE(sending->flush().ok());
  sending->forget(2);
  queue(3, small);
  run();
  ASSERT_EQ(receiver.arrived.size(), 12u);
  EXPECT_TRUE(receiver.arrived[10].second == large);  // it had begun
}

// The receiver's memory is reused after forget(): the rest of the payload is thrown away, the frame
// is not delivered, and the stream stays in step.
TEST_P(OneConnection, AForgottenOpsHalfReceivedFrameIsThrownAway) {
  const std::vector<std::byte> large = pattern(4u << 20, 1);
  const std::vector<std::byte> after = pattern(1'000, 2);
  std::vector<std::byte> target(large.size());
  receiver.where = [&](const FrameHeader& header) {
    return header.length == large.size() ? Destination{target, 9} : Destination{};
  };
  queue(1, large);
  queue(2, after);
  ASSERT_TRUE(sending->flush().ok());
  ASSERT_TRUE(receiving->receive().ok());
  EXPECT_EQ(receiver.depth, 1);
  receiving->forget(8);  // another op's: no effect
  receiving->forget(9);
  std::fill(target.begin(), target.end(), std::byte{0xee});
  run();
  ASSERT_EQ(receiver.arrived.size(), 1u);
  EXPECT_TRUE(receiver.arrived[0].second == after);
  EXPECT_EQ(receiver.thrown, 1);
  EXPECT_EQ(receiver.depth, 0);
  EXPECT_TRUE(std::all_of(target.begin(), target.end(),
                          [](std::byte one) { return one == std::byte{0xee}; }));
}

TEST_P(OneConnection, ATurnIsBounded) {
  const std::vector<std::byte> large = pattern(limits::kMaxPayload, 1);
  for (int i = 0; i < 8; ++i) {
    queue(1, large);
  }
  ASSERT_TRUE(sending->flush().ok());
  EXPECT_TRUE(sending->writing() || !sender.outgoing.empty());
  const std::size_t before = receiver.received_bytes;
  ASSERT_TRUE(receiving->receive().ok());
  EXPECT_LE(receiver.received_bytes - before, std::size_t{8} << 20);
  run();
  EXPECT_EQ(receiver.arrived.size(), 8u);
}

TEST_P(OneConnection, AClosedPeerAndGarbageAreErrors) {
  sending.reset();
  poller->wait(kSecond, [] {});  // through shared memory, the end is an event of its own
  EXPECT_EQ(receiving->receive().error().code, Code::io);

  auto [a, b] = connection_pair();
  sending = start(std::move(a), sender);
  Owner owner;
  auto victim = start(std::move(b), owner);
  OutFrame garbage;
  garbage.header.fill(std::byte{0x7f});
  sender.outgoing.push_back(std::move(garbage));
  ASSERT_TRUE(sending->flush().ok());
  EXPECT_EQ(victim->receive().error().code, Code::protocol);
}

}  // namespace
}  // namespace reef
