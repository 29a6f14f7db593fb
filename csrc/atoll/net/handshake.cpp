#include "atoll/net/handshake.h"

#include <sys/random.h>

#include <algorithm>

namespace reef {

GreetingBytes encode_greeting(FrameType type, const Hello& hello) {
  FrameHeader header;
  header.type = type;
  header.length = static_cast<std::uint32_t>(kHelloBytes);
  const HeaderBytes head = encode_header(header);
  const HelloBytes body = encode_hello(hello);
  GreetingBytes bytes;
  std::copy(body.begin(), body.end(), std::copy(head.begin(), head.end(), bytes.begin()));
  return bytes;
}

Result<Hello> parse_greeting(FrameType type, std::span<const std::byte> bytes) {
  auto header = parse_header(bytes);
  if (!header) {
    return header.error();
  }
  if (header.value().type != type) {
    return Error{Code::protocol, 0, "the first frame of a connection is no greeting"};
  }
  return parse_hello(bytes.subspan(kHeaderBytes));
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
