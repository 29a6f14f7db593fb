// The kernels for AVX-512. Compiled with flags of its own (CMakeLists.txt); empty elsewhere.
#if defined(__x86_64__)

#include "atoll/codec/vector_avx512.h"
#include "atoll/codec/vector_table.h"

namespace reef::codec {

const CodecKernels& avx512_kernels(CodecId id) {
  return kTable<Avx512>[static_cast<std::size_t>(id)];
}

}  // namespace reef::codec

#endif
