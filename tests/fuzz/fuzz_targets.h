// What is fuzzed: the parsers, and a connection's whole receive path. Each takes any bytes and must
// neither crash nor break what it promises. Used by libFuzzer (frame_fuzz.cpp) and by the native
// tests, which drive it with a mutator of their own (fuzz_test.cpp).
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/limits.h"
#include "atoll/net/handshake.h"
#include "atoll/net/slot_log.h"
#include "atoll/net/stream_connection.h"
#include "atoll/net/wakeup.h"
#include "atoll/wire/description.h"
#include "atoll/wire/frame.h"

namespace reef::fuzz {

// What is accepted encodes to the same bytes again.
inline void parsers(std::span<const std::byte> bytes) {
  if (const auto header = parse_header(bytes)) {
    const HeaderBytes again = encode_header(header.value());
    check(std::equal(again.begin(), again.end(), bytes.begin()),
          "an accepted header changed when it was encoded again");
  }
  if (const auto hello = parse_hello(bytes)) {
    const HelloBytes again = encode_hello(hello.value());
    check(std::equal(again.begin(), again.end(), bytes.begin()),
          "an accepted hello changed when it was encoded again");
  }
  if (const auto description = parse_description(bytes)) {
    const DescriptionBytes again = encode_description(description.value());
    check(std::equal(again.begin(), again.end(), bytes.begin()),
          "an accepted description changed when it was encoded again");
  }
  if (bytes.size() >= kGreetingBytes) {
    const auto greeting = parse_greeting(FrameType::hello, bytes.first(kGreetingBytes));
    check(!greeting || greeting.value().connections <= limits::kMaxConnectionsPerLink,
          "an accepted greeting breaks a rule");
  }
}

// Gives out the input in slices of odd lengths, which come from the input itself, then EAGAIN.
class SlicedStream final : public Stream {
 public:
  SlicedStream(std::span<const std::byte> input, int fd) : input_(input), fd_(fd) {}
  [[nodiscard]] int fd() const override { return fd_; }
  IoResult read(std::span<const iovec> parts) override {
    if (input_.empty()) return {0, EAGAIN};
    std::size_t left = 1 + (std::to_integer<std::size_t>(input_[0]) * 37) % 501;
    std::size_t total = 0;
    for (const iovec& part : parts) {
      const std::size_t take = std::min({part.iov_len, left, input_.size()});
      if (take > 0) std::memcpy(part.iov_base, input_.data(), take);
      input_ = input_.subspan(take);
      left -= take;
      total += take;
    }
    return {total, 0};
  }
  IoResult write(std::span<const iovec>) override { return {0, EAGAIN}; }
  void finish_writing() override {}
  Fd release() override { return Fd(); }
  [[nodiscard]] std::string explain(int) const override { return "an error"; }
  [[nodiscard]] bool spent() const { return input_.empty(); }

 private:
  std::span<const std::byte> input_;
  int fd_;
};

// Takes what arrives, and looks after what a connection promises.
class Judge final : public ConnectionOwner {
 public:
  Destination place(const FrameHeader& header) override {
    check(header.length > 0 && header.length <= limits::kMaxPayload, "place(): an absurd length");
    placed_ = header.sequence % 2 == 0;
    if (!placed_) return {};
    target_.assign(header.length, std::byte{0});
    return {target_, header.sequence % 3};
  }
  Status deliver(Connection& connection, const FrameHeader& header,
                 std::span<const std::byte> payload, bool thrown_away) override {
    check(thrown_away ? payload.empty() : payload.size() == header.length,
          "deliver(): the payload is not as long as its header says");
    const Status parsed = header.type == FrameType::start
                              ? Status(Unit{})
                              : log.acknowledged(header.sequence);  // whatever it is: no crash
    log.arrived(header.length);
    ++delivered;
    if (delivered % 5 == 0) connection.forget(header.sequence % 3);
    return header.epoch % 97 == 96 && !parsed.ok() ? parsed : Status(Unit{});
  }
  void displaced(const FrameHeader&) override { ++displacements; }
  bool take(Connection&, OutFrame&) override { return false; }
  void wrote(Connection&, OutFrame) override {}
  void ready(Connection&, std::uint32_t) override {}
  void received(std::size_t) override {}
  void sent(std::size_t) override {}
  void inside_payload(bool inside) override {
    depth += inside ? 1 : -1;
    check(depth == 0 || depth == 1, "inside_payload() does not come in pairs");
  }
  [[nodiscard]] bool over() const override { return false; }

  SlotLog log;
  std::size_t delivered = 0;
  int displacements = 0;
  int depth = 0;

 private:
  bool placed_ = false;
  std::vector<std::byte> target_;
};

// Returns the number of frames delivered.
inline std::size_t receive_path(std::span<const std::byte> bytes, bool checksums) {
  static const auto poller = std::move(Poller::create().value());
  static const auto bell = std::move(Wakeup::create().value());
  Judge judge;
  auto made = std::make_unique<SlicedStream>(bytes, bell.fd());
  const SlicedStream& stream = *made;
  StreamConnection connection(std::move(made), checksums);
  check(connection.start(*poller, judge).ok(), "the connection does not start");
  while (!stream.spent()) {
    if (!connection.receive().ok()) break;
  }
  connection.cut();
  check(judge.depth == 0, "a payload was begun and neither ended nor displaced");
  return judge.delivered;
}

}  // namespace reef::fuzz
