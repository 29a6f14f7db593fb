// Links between peers of one host: how they come about, when the network is used instead, and what
// a hostile partner can do in shared memory.
#include <gtest/gtest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"
#include "atoll/net/local_socket.h"
#include "atoll/net/shm_ring.h"
#include "atoll/net/socket.h"
#include "island.h"
#include "local_channels.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

class LocalLinks : public ::testing::Test {
 protected:
  static LinkStats link_of(Island& island, const PeerId& peer) {
    for (const LinkStats& link : island.engine->stats().links) {
      if (link.peer == peer) {
        return link;
      }
    }
    return {};
  }
  static void join(Island& young, Island& old) {
    old.engine->expect(young.id);
    young.engine->dial(old.id, "127.0.0.1", old.engine->port());
    old.await_up(young.id);
    young.await_up(old.id);
  }
  static EngineOptions quick(unsigned number) {
    EngineOptions options = options_of(number);
    options.handshake_timeout = 300 * kMillisecond;
    options.dial_timeout = 4 * kSecond;
    return options;
  }

 private:
  TransportChoice choice_{true};
};

TEST_F(LocalLinks, AreMadeByThemselves) {
  Island old(1);
  Island young(2);
  join(young, old);
  EXPECT_EQ(link_of(old, young.id).transport, Transport::shm);
  EXPECT_EQ(link_of(young, old.id).transport, Transport::shm);
  EXPECT_EQ(young.engine->stats().shared_memory_failures, 0u);
}

TEST_F(LocalLinks, EitherSideMayRefuseThem) {
  for (const unsigned refusing : {1u, 2u}) {
    EngineOptions first = options_of(1);
    EngineOptions second = options_of(2);
    (refusing == 1 ? first : second).shared_memory = false;
    Island old(first);
    Island young(second);
    join(young, old);
    EXPECT_EQ(link_of(old, young.id).transport, Transport::tcp);
    EXPECT_EQ(link_of(young, old.id).transport, Transport::tcp);
  }
}

TEST_F(LocalLinks, AHelloIsHeldUntilThePeerIsExpected) {
  Island old(1);
  Island young(2);
  young.engine->dial(old.id, "127.0.0.1", old.engine->port());
  // The handshake of another connection comes after it, and is through before it.
  RawPeer raw = linked_raw_peer(old, 3);
  old.engine->expect(young.id);
  old.await_up(young.id);
  young.await_up(old.id);
  EXPECT_EQ(link_of(old, young.id).transport, Transport::shm);
}

// Somebody of the same user has taken the peer's name, and says nothing, or something wrong.
class Squatters : public LocalLinks, public ::testing::WithParamInterface<int> {
 protected:
  static Hello answer_to(const Hello& hello) {
    Hello ack = hello;
    ack.sender = hello.receiver;
    ack.receiver = hello.sender;
    switch (GetParam()) {
      case 1: ack.secret[3] = 9; break;
      case 2: ack.nonce[0] ^= 1; break;
      case 3: ack.sender = id_of(7); break;
      default: break;
    }
    return ack;
  }
};

TEST_P(Squatters, AreLeftForTheNetworkInTime) {
  EngineOptions plain = quick(1);
  plain.shared_memory = false;
  Island old(plain);
  const Fd squatter = std::move(listen_locally({old.id, old.engine->port()}).value());
  Island young(quick(2));
  old.engine->expect(young.id);
  young.engine->dial(old.id, "127.0.0.1", old.engine->port());
  pollfd ready{squatter.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&ready, 1, static_cast<int>(kPatience / kMillisecond)), 1);
  Fd connection(::accept4(squatter.get(), nullptr, nullptr, SOCK_CLOEXEC));
  GreetingBytes bytes;
  ready.fd = connection.get();
  ASSERT_EQ(::poll(&ready, 1, static_cast<int>(kPatience / kMillisecond)), 1);
  const auto message = receive_message(connection.get(), bytes, 3);
  ASSERT_EQ(message.value().bytes, bytes.size());
  EXPECT_EQ(message.value().fds.size(), 3u);
  const Hello hello = parse_greeting(FrameType::hello, bytes).value();
  if (GetParam() == 4) {
    connection.reset();
  } else if (GetParam() == 5) {
    ASSERT_TRUE(send_message(connection.get(), std::vector<std::byte>(500), {}).ok());
  } else if (GetParam() > 0) {
    const auto ack = encode_greeting(FrameType::hello_ack, answer_to(hello));
    ASSERT_TRUE(send_message(connection.get(), ack, {}).ok());
  }
  young.await_up(old.id);
  EXPECT_EQ(link_of(young, old.id).transport, Transport::tcp);
  EXPECT_EQ(young.engine->stats().shared_memory_failures, 1u);
}

INSTANTIATE_TEST_SUITE_P(SilentAndLying, Squatters, ::testing::Range(0, 6));

TEST_F(LocalLinks, ANameThatIsTakenLeavesTheNetwork) {
  EngineOptions options = options_of(1);
  Fd port = std::move(listen_on("127.0.0.1", 0).value());
  options.bind_port = local_port(port.get());
  Fd squatter = std::move(listen_locally({options.self, options.bind_port}).value());
  port.reset();
  Island old(options);
  squatter.reset();  // nobody listens there any more
  Island young(2);
  join(young, old);
  EXPECT_EQ(link_of(young, old.id).transport, Transport::tcp);
}

// ---- strangers at the Unix socket
// ----------------------------------------------------------------

class Strangers : public LocalLinks {
 protected:
  Strangers() : island(quick(1)) { island.engine->expect(id_of(2)); }

  Fd connect() {
    return std::move(connect_locally({island.id, island.engine->port()}).value());
  }
  static std::array<int, 3> fds_of(const LocalChannel& channel) {
    return {channel.memory.fd(), channel.peer_bell.get(), channel.own_bell.get()};
  }
  static bool is_closed(const Fd& socket) {
    pollfd ready{socket.get(), POLLIN, 0};
    std::byte one;
    return ::poll(&ready, 1, static_cast<int>(kPatience / kMillisecond)) == 1 &&
           ::recv(socket.get(), &one, 1, MSG_DONTWAIT) <= 0;
  }
  void expect_refused(const Hello& hello, std::span<const int> fds) {
    const Fd socket = connect();
    ASSERT_TRUE(send_message(socket.get(), encode_greeting(FrameType::hello, hello), fds).ok());
    EXPECT_TRUE(is_closed(socket));
    EXPECT_FALSE(link_of(island, id_of(2)).up);
  }
  std::uint64_t rejected() {
    const EngineStats stats = island.engine->stats();
    return stats.rejected_bad_hello + stats.rejected_garbage + stats.rejected_timeout;
  }

  Island island;
  std::pair<LocalChannel, LocalChannel> ends = local_channels();
};

TEST_F(Strangers, AreRefusedAndCounted) {
  const auto fds = fds_of(ends.first);
  Hello hello = hello_to(island, 2);
  hello.secret[5] = 1;
  expect_refused(hello, fds);
  hello = hello_to(island, 2);
  hello.receiver = id_of(9);
  expect_refused(hello, fds);
  hello = hello_to(island, 2);
  hello.connections = 2;
  expect_refused(hello, fds);
  hello = hello_to(island, 77);  // not expected: refused when its time is over
  expect_refused(hello, fds);
  EXPECT_EQ(island.engine->stats().rejected_bad_hello, 4u);
  hello = hello_to(island, 2);
  expect_refused(hello, std::span(fds).first(2));
  expect_refused(hello, std::array<int, 3>{fds[1], fds[1], fds[2]});  // no memory
  const Fd noisy = connect();
  ASSERT_TRUE(send_message(noisy.get(), std::vector<std::byte>(40), {}).ok());
  EXPECT_TRUE(is_closed(noisy));
  EXPECT_EQ(island.engine->stats().rejected_garbage, 3u);
  EXPECT_TRUE(is_closed(connect()));  // says nothing
  EXPECT_EQ(island.engine->stats().rejected_timeout, 1u);
}

TEST_F(Strangers, AreBounded) {
  std::vector<Fd> idle;
  for (std::size_t i = 0; i < limits::kMaxPendingHandshakes + 10; ++i) {
    auto socket = connect_locally({island.id, island.engine->port()});
    if (socket) {
      idle.push_back(std::move(socket.value()));
    }
  }
  Island young(quick(2));  // the network is still there
  young.engine->dial(island.id, "127.0.0.1", island.engine->port());
  young.await_up(island.id);
  EXPECT_GE(island.engine->stats().rejected_overload, 1u);
}

TEST_F(Strangers, OfAnotherUserAreRefused) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can become another user";
  }
  const auto fds = fds_of(ends.first);
  const GreetingBytes bytes = encode_greeting(FrameType::hello, hello_to(island, 2));
  const LocalName name{island.id, island.engine->port()};
  const pid_t child = ::fork();
  if (child == 0) {  // 0: refused
    if (::setresuid(65534, 65534, 65534) != 0) std::_Exit(2);
    const auto socket = connect_locally(name);
    if (!socket) std::_Exit(3);
    (void)send_message(socket.value().get(), bytes, fds);
    std::_Exit(is_closed(socket.value()) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(rejected(), 1u);
  EXPECT_FALSE(link_of(island, id_of(2)).up);
}

TEST_F(LocalLinks, NothingIsSaidToAnotherUsersSocket) {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "only root can become another user";
  }
  EngineOptions plain = options_of(1);
  plain.shared_memory = false;
  Island old(plain);
  int answer[2];
  ASSERT_EQ(::pipe2(answer, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {  // says 'l' when it listens; then how many bytes it was told
    if (::setresuid(65534, 65534, 65534) != 0) std::_Exit(2);
    const auto listener = listen_locally({id_of(1), old.engine->port()});
    if (!listener || ::write(answer[1], "l", 1) != 1) std::_Exit(3);
    pollfd ready{listener.value().get(), POLLIN, 0};
    ::poll(&ready, 1, 10'000);
    const Fd connection(::accept4(listener.value().get(), nullptr, nullptr, SOCK_CLOEXEC));
    std::array<std::byte, 1'000> heard;
    const ssize_t got = ::recv(connection.get(), heard.data(), heard.size(), 0);
    std::_Exit(got <= 0 ? 0 : 1);
  }
  char listening = 0;
  ASSERT_EQ(::read(answer[0], &listening, 1), 1);
  Island young(2);
  join(young, old);
  EXPECT_EQ(link_of(young, old.id).transport, Transport::tcp);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(answer[0]);
  ::close(answer[1]);
}

// ---- a partner that knows the secret, and breaks the rules
// ---------------------------------------

class Partners : public Strangers {
 protected:
  // The other end of a link that is up, in this test's hands.
  void link_up() {
    ends = local_channels();
    socket = connect();
    const auto bytes = encode_greeting(FrameType::hello, hello_to(island, 2));
    ASSERT_TRUE(send_message(socket.get(), bytes, fds_of(ends.first)).ok());
    island.await_up(id_of(2));
    view = ends.first.memory.ring(0);
    ASSERT_EQ(link_of(island, id_of(2)).transport, Transport::shm);
  }
  void ring() const {
    const std::uint64_t one = 1;
    ASSERT_EQ(::write(ends.first.peer_bell.get(), &one, sizeof one), 8);
  }
  void say(std::span<const std::byte> bytes) {
    RingWriter writer(view);
    std::memcpy(writer.space(bytes.size()).value().data(), bytes.data(), bytes.size());
    writer.commit((bytes.size() + 15) / 16 * 16);
    (void)writer.publish();
    ring();
  }
  void expect_end(LinkEnd reason) {
    const LinkDown down = island.await_down(id_of(2));
    EXPECT_EQ(down.reason, reason) << down.message;
    EXPECT_TRUE(is_closed_after_ack());
  }
  bool is_closed_after_ack() {
    GreetingBytes ack;
    (void)receive_message(socket.get(), ack, 0);
    return is_closed(socket);
  }

  Fd socket;
  RingView view;
};

TEST_F(Partners, GarbageInTheRingEndsTheLink) {
  link_up();
  say(std::vector<std::byte>(64, std::byte{0x7f}));
  expect_end(LinkEnd::protocol);
  EXPECT_EQ(island.engine->stats().protocol_errors, 1u);
}

TEST_F(Partners, ImpossibleWritingIndicesEndTheLink) {
  for (const std::uint64_t bad : {std::uint64_t{1} << 40, UINT64_MAX}) {
    link_up();
    view.indices->head = bad;
    ring();
    expect_end(LinkEnd::protocol);
  }
}

TEST_F(Partners, ImpossibleReadingIndicesEndTheLink) {
  const std::vector<std::byte> state(8u << 20);
  island.engine->publish({1, {state}, nullptr});
  for (const std::uint64_t bad : {std::uint64_t{1} << 40, UINT64_MAX}) {
    link_up();
    ends.first.memory.ring(1).indices->tail = bad;
    // It looks at this index when its own count says that the ring is full.
    FrameHeader request;
    request.type = FrameType::state_request;
    request.length = 8;
    request.epoch = 1;
    std::vector<std::byte> bytes(kHeaderBytes + 8);
    const HeaderBytes header = encode_header(request);
    std::copy(header.begin(), header.end(), bytes.begin());
    store_le<std::uint64_t>(bytes.data() + kHeaderBytes, state.size());
    say(bytes);
    expect_end(LinkEnd::protocol);
  }
}

TEST_F(Partners, TalkOnTheSocketEndsTheLink) {
  link_up();
  ASSERT_EQ(::send(socket.get(), "x", 1, 0), 1);
  expect_end(LinkEnd::protocol);
}

TEST_F(Partners, EndsAreHeardAfterWhatWasSaidBefore) {
  link_up();
  FrameHeader bye;
  bye.type = FrameType::bye;
  const HeaderBytes bytes = encode_header(bye);
  RingWriter writer(view);
  std::memcpy(writer.space(bytes.size()).value().data(), bytes.data(), bytes.size());
  writer.commit(bytes.size());
  (void)writer.publish();
  socket.reset();  // without a bell
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::bye);

  link_up();
  socket.reset();
  EXPECT_EQ(island.await_down(id_of(2)).reason, LinkEnd::reset);
}

TEST_F(Partners, SilenceEndsTheLink) {
  EngineOptions options = options_of(5);
  options.heartbeat = 50 * kMillisecond;
  options.silence = 400 * kMillisecond;
  Island impatient(options);
  impatient.engine->expect(id_of(2));
  const Fd end = std::move(connect_locally({impatient.id, impatient.engine->port()}).value());
  const auto bytes = encode_greeting(FrameType::hello, hello_to(impatient, 2));
  ASSERT_TRUE(send_message(end.get(), bytes, fds_of(ends.first)).ok());
  impatient.await_up(id_of(2));
  EXPECT_EQ(impatient.await_down(id_of(2)).reason, LinkEnd::silent);
}

}  // namespace
}  // namespace reef::testing
