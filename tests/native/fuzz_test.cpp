// The fuzz targets under a deterministic mutator: streams of sound frames, with a few bytes changed,
// cut out, doubled or put elsewhere. A longer run: ATOLL_FUZZ_ROUNDS=1000000.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "../fuzz/fuzz_targets.h"
#include "atoll/wire/checksum.h"

namespace reef {
namespace {

int rounds() {
  const char* wanted = std::getenv("ATOLL_FUZZ_ROUNDS");
  return wanted == nullptr ? 100'000 : std::max(1, std::atoi(wanted));
}

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  // Frames of all types, as a peer may send them.
  std::vector<std::byte> stream(bool checksums) {
    std::vector<std::byte> bytes;
    for (std::size_t frames = 1 + random_() % 8; frames > 0; --frames) {
      FrameHeader header;
      header.type = static_cast<FrameType>(3 + random_() % 8);
      header.sequence = random_() % 8;
      header.epoch = random_() % 4;
      header.offset = random_();
      switch (header.type) {
        case FrameType::start: header.length = kDescriptionBytes; break;
        case FrameType::state_request:
        case FrameType::state_nack: header.length = 8; break;
        case FrameType::data:
        case FrameType::state_data: header.length = static_cast<std::uint32_t>(random_() % 3'000); break;
        default: break;
      }
      std::vector<std::byte> payload(header.length);
      for (std::byte& byte : payload) byte = static_cast<std::byte>(random_());
      HeaderBytes head = encode_header(header);
      if (checksums) seal(head, payload);
      bytes.insert(bytes.end(), head.begin(), head.end());
      bytes.insert(bytes.end(), payload.begin(), payload.end());
    }
    return bytes;
  }
  void mutate(std::vector<std::byte>& bytes) {
    for (std::size_t changes = random_() % 4; changes > 0 && !bytes.empty(); --changes) {
      const std::size_t at = random_() % bytes.size();
      const std::size_t count = std::min<std::size_t>(1 + random_() % 64, bytes.size() - at);
      const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
      const auto last = first + static_cast<std::ptrdiff_t>(count);
      switch (random_() % 5) {
        case 0: *first = static_cast<std::byte>(random_()); break;
        case 1: *first ^= static_cast<std::byte>(1u << (random_() % 8)); break;
        case 2: std::fill(first, last, std::byte{0xff}); break;
        case 3: bytes.erase(first, last); break;
        default: {
          const std::vector<std::byte> copy(first, last);
          const std::size_t to = random_() % bytes.size();
          bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(to), copy.begin(), copy.end());
        }
      }
    }
  }

 private:
  std::mt19937_64 random_;
};

TEST(Fuzz, TheParsersTakeAnything) {
  std::mt19937_64 random(1);
  for (int round = 0; round < rounds(); ++round) {
    Hello hello;
    hello.connections = static_cast<std::uint32_t>(1 + random() % 20);
    hello.connection_index = static_cast<std::uint32_t>(random() % 20);
    hello.flags = static_cast<std::uint32_t>(random() % 9);
    const GreetingBytes greeting = encode_greeting(FrameType::hello, hello);
    std::vector<std::byte> bytes(greeting.begin(), greeting.end());
    Mutator(random()).mutate(bytes);
    fuzz::parsers(bytes);
    fuzz::parsers(std::span<const std::byte>(bytes).subspan(std::min(bytes.size(), kHeaderBytes)));
    OpDescription description;
    description.count = random() % 1'000;
    const DescriptionBytes described = encode_description(description);
    bytes.assign(described.begin(), described.end());
    Mutator(random()).mutate(bytes);
    fuzz::parsers(bytes);
  }
}

TEST(Fuzz, AConnectionTakesAnyStream) {
  std::size_t delivered = 0;
  for (int round = 0; round < rounds(); ++round) {
    const bool checksums = round % 2 == 1;
    Mutator mutator(static_cast<std::uint64_t>(round));
    std::vector<std::byte> bytes = mutator.stream(checksums);
    mutator.mutate(bytes);
    delivered += fuzz::receive_path(bytes, checksums);
  }
  EXPECT_GT(delivered, static_cast<std::size_t>(rounds()));  // most of it gets through the header
}

}  // namespace
}  // namespace reef
