#include "atoll/collective/plans/operand.h"

#include "atoll/collective/plans/grid.h"
#include "atoll/kernels/arithmetic.h"

namespace reef {

namespace {

// The vector types that codecs read and write; a payload's floats may lie anywhere.
std::span<float> floats(std::span<std::byte> bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}
std::span<const float> floats(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

// The random bits of one member's encodings must not be those of another's (SplitMix64's mixing).
std::uint64_t mixed(std::uint64_t seed, Rank self, std::uint32_t salt) {
  std::uint64_t x = seed + 0x9e3779b97f4a7c15u * (1 + (std::uint64_t{self} << 16 | salt));
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

}  // namespace

Operand::Operand(const PlanSetup& setup)
    : in_(setup.in),
      dtype_(setup.dtype),
      reduction_(setup.reduction),
      codec_(setup.codec),
      self_(setup.self),
      weight_(setup.weights == nullptr ? 1 : setup.weights->of(setup.self)) {}

std::span<const std::byte> Operand::own(std::uint64_t offset, std::uint64_t length) {
  const std::span<const std::byte> numbers = in_.subspan(offset, length);
  if (weight_ == 1 || length == 0) return numbers;
  scratch_.resize(std::max<std::size_t>(scratch_.size(), length));
  const std::span<std::byte> weighted = std::span(scratch_).first(length);
  if (absent()) {
    fill_identity(dtype_, reduction_, weighted);
  } else {
    scale(dtype_, weight_, weighted, numbers);
  }
  return weighted;
}

Payload Operand::own_payload(std::uint64_t offset, std::uint64_t length) {
  const std::span<const std::byte> numbers = own(offset, length);
  if (coded()) return encoded(numbers, offset, 0);
  if (weight_ == 1) return {numbers, nullptr};
  auto copy = std::make_shared<std::vector<std::byte>>(numbers.begin(), numbers.end());
  return {*copy, copy};
}

Payload Operand::sum_payload(std::span<const std::byte> sum, std::uint64_t offset,
                             std::uint32_t salt) {
  if (coded()) return encoded(sum, offset, salt);
  return {sum, nullptr};
}

Payload Operand::seal(std::span<std::byte> sum, std::uint64_t offset) {
  if (!coded()) return {sum, nullptr};
  Payload payload = encoded(sum, offset, 1);
  decode(codec_.id, payload.bytes, floats(sum));
  return payload;
}

Payload Operand::encoded(std::span<const std::byte> numbers, std::uint64_t offset,
                         std::uint32_t salt) {
  const std::size_t bytes = encoded_bytes(codec_.id, numbers.size() / sizeof(float));
  const std::shared_ptr<std::byte[]> buffer(new std::byte[bytes]);
  Codec codec = codec_;
  codec.seed = mixed(codec_.seed, self_, salt);
  report_ += encode(codec, floats(numbers), {buffer.get(), bytes}, offset / sizeof(float));
  return {{buffer.get(), bytes}, buffer};
}

void Operand::put(std::span<std::byte> sum, std::span<const std::byte> payload) const {
  if (coded()) {
    decode(codec_.id, payload, floats(sum));
  } else {
    settle_in(sum, payload);
  }
}

void Operand::add(std::span<std::byte> sum, std::span<const std::byte> payload) const {
  if (coded()) {
    decode_add(codec_.id, payload, floats(sum));
  } else {
    combine(dtype_, reduction_, sum, sum, payload);
  }
}

void Operand::put_own(std::span<std::byte> sum, std::uint64_t offset) {
  settle_in(sum, own(offset, sum.size()));
}

void Operand::add_own(std::span<std::byte> sum, std::uint64_t offset) {
  if (!absent()) combine(dtype_, reduction_, sum, sum, own(offset, sum.size()));
}

void Operand::put_own_and(std::span<std::byte> sum, std::uint64_t offset,
                          std::span<const std::byte> payload) {
  if (absent()) {
    put(sum, payload);
  } else if (coded()) {
    // The sum of two floats does not depend on their order.
    decode(codec_.id, payload, floats(sum));
    combine(dtype_, reduction_, sum, own(offset, sum.size()), sum);
  } else {
    combine(dtype_, reduction_, sum, own(offset, sum.size()), payload);
  }
}

void Operand::join(std::span<std::byte> sum, std::span<const std::byte> a,
                   std::span<const std::byte> b) const {
  combine(dtype_, reduction_, sum, a, b);
}

void Operand::put_identity(std::span<std::byte> sum) const {
  fill_identity(dtype_, reduction_, sum);
}

void Operand::finish(std::span<std::byte> sum, const Weights& weights) const {
  if (!needs_all_weights()) return;
  const double total = weights.total();
  if (total > 0 && total != 1) divide(dtype_, total, sum);
}

}  // namespace reef
