// libFuzzer on what fuzz_targets.h names: -DATOLL_FUZZ=ON with clang, then build/frame_fuzz [corpus].
#include "fuzz_targets.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  reef::fuzz::parsers(bytes);
  reef::fuzz::receive_path(bytes, false);
  reef::fuzz::receive_path(bytes, true);
  return 0;
}
