// The kernels for NEON, which every AArch64 processor has; empty elsewhere.
#if defined(__aarch64__) && !defined(__AARCH64EB__)

#include "atoll/codec/vector_neon.h"
#include "atoll/codec/vector_table.h"

namespace reef::codec {

const CodecKernels& neon_kernels(CodecId id) {
  return kTable<Neon>[static_cast<std::size_t>(id)];
}

}  // namespace reef::codec

#endif
