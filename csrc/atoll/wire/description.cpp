#include "atoll/wire/description.h"

#include <bit>
#include <cmath>
#include <string>

#include "atoll/base/endian.h"
#include "atoll/base/limits.h"

namespace reef {

namespace {

Error refuse(std::string what) { return Error{Code::protocol, 0, std::move(what)}; }

constexpr std::size_t kReservedAt = 22;  // two bytes
constexpr std::size_t kNoteAt = 24;
constexpr std::size_t kWeightAt = 32;
constexpr std::size_t kDigestAt = 40;

}  // namespace

const char* plan_name(Plan plan) {
  switch (plan) {
    case Plan::none: return "auto";
    case Plan::ring: return "ring";
    case Plan::direct: return "direct";
    case Plan::doubling: return "doubling";
    case Plan::mesh: return "mesh";
    case Plan::grouped: return "grouped";
  }
  return "unknown";
}

std::size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    case DType::i8:
    case DType::u8: return 1;
  }
  check(false, "dtype_bytes: an unknown dtype passed validation");
  return 0;
}

bool is_floating(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f64 || dtype == DType::f16 || dtype == DType::bf16;
}

bool OpDescription::same_op(const OpDescription& other) const {
  OpDescription mine = *this;
  mine.weight = other.weight;
  mine.note = other.note;
  return mine == other;
}

DescriptionBytes encode_description(const OpDescription& description) {
  DescriptionBytes bytes{};
  bytes[0] = static_cast<std::byte>(description.kind);
  bytes[1] = static_cast<std::byte>(description.plan);
  bytes[2] = static_cast<std::byte>(description.dtype);
  bytes[3] = static_cast<std::byte>(description.reduction);
  store_le(bytes.data() + 4, description.root);
  store_le(bytes.data() + 8, description.count);
  store_le(bytes.data() + 16, description.chunk_bytes);
  bytes[20] = static_cast<std::byte>(description.codec);
  bytes[21] = static_cast<std::byte>(description.rounding);
  store_le(bytes.data() + kNoteAt, description.note);
  store_le(bytes.data() + kWeightAt, std::bit_cast<std::uint64_t>(description.weight));
  store_le(bytes.data() + kDigestAt, description.digest);
  return bytes;
}

Result<OpDescription> parse_description(std::span<const std::byte> bytes) {
  if (bytes.size() != kDescriptionBytes) {
    return refuse("an op's description has 48 bytes, got " + std::to_string(bytes.size()));
  }
  const std::byte* at = bytes.data();
  const auto byte = [at](std::size_t i) { return std::to_integer<std::uint8_t>(at[i]); };
  if (byte(0) < 1 || byte(0) > kLastOpKind || byte(1) > kLastPlan || byte(2) < 1 ||
      byte(2) > kLastDType || byte(3) > kLastReduction) {
    return refuse("an op's description has an unknown kind, plan, dtype or reduction");
  }
  if (byte(20) >= kCodecs || byte(21) > 1) {
    return refuse("an op's description has an unknown codec or rounding");
  }
  for (std::size_t i = kReservedAt; i < kNoteAt; ++i) {
    if (at[i] != std::byte{0}) {
      return refuse("an op's description has reserved bits set");
    }
  }
  OpDescription description;
  description.kind = static_cast<OpKind>(byte(0));
  description.plan = static_cast<Plan>(byte(1));
  description.dtype = static_cast<DType>(byte(2));
  description.reduction = static_cast<Reduction>(byte(3));
  description.root = load_le<std::uint32_t>(at + 4);
  description.count = load_le<std::uint64_t>(at + 8);
  description.chunk_bytes = load_le<std::uint32_t>(at + 16);
  description.codec = static_cast<CodecId>(byte(20));
  description.rounding = static_cast<Rounding>(byte(21));
  description.note = load_le<std::uint64_t>(at + kNoteAt);
  description.weight = std::bit_cast<double>(load_le<std::uint64_t>(at + kWeightAt));
  description.digest = load_le<std::uint64_t>(at + kDigestAt);
  if (description.count > limits::kMaxVectorBytes / dtype_bytes(description.dtype)) {
    return refuse("an op's description claims " + std::to_string(description.count) + " elements");
  }
  if (description.chunk_bytes > limits::kMaxPayload) {
    return refuse("an op's description claims chunks of " +
                  std::to_string(description.chunk_bytes) + " bytes");
  }
  if (description.root >= limits::kMaxMembers) {
    return refuse("an op's description names root " + std::to_string(description.root));
  }
  if (!std::isfinite(description.weight) || description.weight < 0) {
    return refuse("an op's description has a weight that is negative or not finite");
  }
  return description;
}

}  // namespace reef
