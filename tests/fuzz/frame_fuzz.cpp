// libFuzzer on the parsers. Needs clang:
//   clang++ -std=c++20 -g -fsanitize=fuzzer,address,undefined -I csrc tests/fuzz/frame_fuzz.cpp
//     csrc/atoll/base/*.cpp csrc/atoll/wire/*.cpp -o frame_fuzz
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "atoll/wire/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto header = reef::parse_header(bytes);
  if (header.ok()) {
    const reef::HeaderBytes again = reef::encode_header(header.value());
    reef::check(std::equal(again.begin(), again.end(), bytes.begin()),
                "an accepted header changed when it was encoded again");
  }
  const auto hello = reef::parse_hello(bytes);
  if (hello.ok()) {
    const reef::HelloBytes again = reef::encode_hello(hello.value());
    reef::check(std::equal(again.begin(), again.end(), bytes.begin()),
                "an accepted hello changed when it was encoded again");
  }
  const auto description = reef::parse_description(bytes);
  if (description.ok()) {
    const reef::DescriptionBytes again = reef::encode_description(description.value());
    reef::check(std::equal(again.begin(), again.end(), bytes.begin()),
                "an accepted description changed when it was encoded again");
  }
  return 0;
}
