#include "atoll/net/handshake.h"

#include <sys/random.h>

#include <algorithm>

#include "atoll/wire/checksum.h"

namespace reef {

GreetingBytes encode_greeting(FrameType type, const Hello& hello) {
  FrameHeader header;
  header.type = type;
  header.length = static_cast<std::uint32_t>(kHelloBytes);
  HeaderBytes head = encode_header(header);
  const HelloBytes body = encode_hello(hello);
  seal(head, body);
  GreetingBytes bytes;
  std::copy(body.begin(), body.end(), std::copy(head.begin(), head.end(), bytes.begin()));
  return bytes;
}

Result<Hello> parse_greeting(FrameType type, std::span<const std::byte> bytes) {
  auto header = parse_greeting_header(bytes);
  if (!header) {
    return header.error();
  }
  if (header.value().type != type) {
    return Error{Code::protocol, 0, "the first frame of a connection is no greeting"};
  }
  Sealed sealed;
  if (!unseal(bytes.first<kHeaderBytes>(), sealed) || !sealed.holds(bytes.subspan(kHeaderBytes))) {
    return Error{Code::protocol, 0, "a greeting's checksum is wrong"};
  }
  return parse_hello(bytes.subspan(kHeaderBytes));
}

Result<FrameHeader> parse_greeting_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kHeaderBytes) {
    return parse_header(bytes);
  }
  Sealed sealed;
  const bool whole = unseal(bytes.first<kHeaderBytes>(), sealed);
  auto header = parse_header(sealed.header);
  if (header && !whole) {
    return Error{Code::protocol, 0, "the header of a greeting has a wrong checksum"};
  }
  return header;
}

bool greets(const Hello& hello, const PeerId& self, const Secret& secret) {
  return same_secret(hello.secret, secret) && hello.receiver == self && hello.sender != self;
}

bool answers(const Hello& ack, const Hello& hello) {
  return ack.sender == hello.receiver && ack.receiver == hello.sender && ack.nonce == hello.nonce &&
         ack.connection_index == hello.connection_index && ack.connections == hello.connections &&
         same_secret(ack.secret, hello.secret);
}

bool same_secret(const Secret& a, const Secret& b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    // Volatile keeps the compiler from leaving the loop early.
    const volatile unsigned one = static_cast<unsigned>(a[i]) ^ static_cast<unsigned>(b[i]);
    difference |= one;
  }
  return difference == 0;
}

Nonce draw_nonce() {
  Nonce nonce{};
  const ssize_t got = ::getrandom(nonce.data(), nonce.size(), 0);
  check(got == static_cast<ssize_t>(nonce.size()), "draw_nonce: getrandom failed");
  return nonce;
}

}  // namespace reef
