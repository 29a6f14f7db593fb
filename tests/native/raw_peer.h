// For tests: a blocking TCP client that says exactly what a test wants, right or wrong.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "atoll/net/fd.h"
#include "atoll/net/handshake.h"
#include "island.h"

namespace reef::testing {

class RawPeer {
 public:
  explicit RawPeer(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0)
        << strerror(errno);
  }
  explicit RawPeer(Fd connected) : fd_(std::move(connected)) {}
  void say(std::span<const std::byte> bytes) const {
    ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  void say(const FrameHeader& header, std::span<const std::byte> payload = {}) const {
    say(encode_header(header));
    say(payload);
  }
  void greet(const Hello& hello) const { say(encode_greeting(FrameType::hello, hello)); }
  // Reads so many bytes; fewer when the other side closes, or after `patience`.
  [[nodiscard]] std::vector<std::byte> hear(std::size_t bytes,
                                            Nanos patience = kPatience) const {
    std::vector<std::byte> heard(bytes);
    std::size_t filled = 0;
    const Nanos deadline = monotonic_now() + patience;
    while (filled < bytes && wait_readable(deadline)) {
      const ssize_t got = ::recv(fd_.get(), heard.data() + filled, bytes - filled, 0);
      if (got <= 0) {
        break;
      }
      filled += static_cast<std::size_t>(got);
    }
    heard.resize(filled);
    return heard;
  }
  // Whether the other side closes (politely or not) without another byte.
  [[nodiscard]] bool is_closed(Nanos patience = kPatience) const {
    return wait_readable(monotonic_now() + patience) && hear(1).empty();
  }
  [[nodiscard]] bool is_acknowledged() const {
    return parse_greeting(FrameType::hello_ack, hear(kGreetingBytes)).ok();
  }
  void shut_writing() const { ::shutdown(fd_.get(), SHUT_WR); }
  void hang_up() { fd_.reset(); }
  void reset() {
    const linger at_once{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    fd_.reset();
  }

 private:
  [[nodiscard]] bool wait_readable(Nanos deadline) const {
    const Nanos left = deadline - monotonic_now();
    pollfd ready{fd_.get(), POLLIN, 0};
    return left > 0 && ::poll(&ready, 1, static_cast<int>(left / kMillisecond) + 1) > 0;
  }
  Fd fd_;
};

inline Hello hello_to(const Island& island, unsigned from) {
  Hello hello;
  hello.sender = id_of(from);
  hello.receiver = island.id;
  hello.nonce = draw_nonce();
  hello.secret[0] = 7;
  return hello;
}

// A raw peer whose link (of one connection) is up.
inline RawPeer linked_raw_peer(Island& island, unsigned number) {
  island.engine->expect(id_of(number));
  RawPeer raw(island.engine->port());
  raw.greet(hello_to(island, number));
  EXPECT_TRUE(raw.is_acknowledged());
  island.await_up(id_of(number));
  return raw;
}

}  // namespace reef::testing
