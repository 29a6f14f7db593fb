#include "atoll/collective/request.h"

#include <cmath>
#include <cstring>
#include <functional>

#include "atoll/base/limits.h"

namespace reef {

namespace {

Error invalid(const char* why) { return Error{Code::invalid, 0, why}; }

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.empty() || b.empty()) return false;
  const std::less<const std::byte*> before;
  return before(a.data(), b.data() + b.size()) && before(b.data(), a.data() + a.size());
}

bool aligned(std::span<const std::byte> buffer, std::size_t width) {
  return reinterpret_cast<std::uintptr_t>(buffer.data()) % width == 0;
}

Status check_sizes(const OpRequest& request) {
  const std::uint64_t bytes = request.count * dtype_bytes(request.dtype);
  const std::size_t in = request.in.size();
  const std::size_t out = request.out.size();
  const auto many = [bytes](std::size_t size) {
    return bytes == 0 ? size == 0 : size % bytes == 0;
  };
  switch (request.kind) {
    case OpKind::barrier:
      if (in != 0 || out != 0 || bytes != 0) return invalid("a barrier has no elements");
      break;
    case OpKind::broadcast:
      if (out != bytes) return invalid("the output's size is not count elements");
      if (in != 0 && in != bytes) return invalid("the input's size is not count elements");
      break;
    case OpKind::all_reduce:
    case OpKind::exchange:
      if (out != bytes) return invalid("the output's size is not count elements");
      if (in != bytes) return invalid("the input's size is not count elements");
      break;
    case OpKind::reduce_scatter:
      if (in != bytes) return invalid("the input's size is not count elements");
      if (out > bytes) return invalid("the output is larger than the input");
      break;
    case OpKind::all_gather:
      if (!request.counts.empty()) break;  // by rank: known when it starts
      if (in != bytes) return invalid("the input's size is not count elements");
      if (!many(out)) return invalid("the output's size is not members times count elements");
      break;
    case OpKind::all_to_all:
      if (!many(in) || in != out) {
        return invalid("input and output must have members times count elements");
      }
      break;
    case OpKind::send:
      if (in != bytes || out != 0) return invalid("the input's size is not count elements");
      break;
    case OpKind::recv:
      if (out != bytes || in != 0) return invalid("the output's size is not count elements");
      break;
  }
  return Unit{};
}

Status check_reduction(const OpRequest& request) {
  if (request.reduction == Reduction::none || static_cast<std::uint8_t>(request.reduction) > kLastReduction) {
    return invalid("the reduction is unknown");
  }
  if (static_cast<std::uint8_t>(request.plan) > kLastPlan) return invalid("the plan is unknown");
  if (request.plan != Plan::none && request.kind != OpKind::all_reduce) {
    return invalid("only an all-reduce has a choice of plans");
  }
  if (!std::isfinite(request.weight) || request.weight < 0) {
    return invalid("the weight is negative or not finite");
  }
  const bool average = request.reduction == Reduction::avg && is_floating(request.dtype);
  if (request.weight != 0 && request.weight != 1 && !average) {
    return invalid("only averages of floating-point numbers have weights other than 0 and 1");
  }
  if (request.codec.id == CodecId::fp32) return Unit{};
  if (static_cast<std::size_t>(request.codec.id) >= kCodecs) return invalid("the codec is unknown");
  if (request.dtype != DType::f32) return invalid("a codec takes float32 only");
  if (request.reduction != Reduction::sum && request.reduction != Reduction::avg) {
    return invalid("with a codec there are sums and averages only");
  }
  if (request.plan == Plan::mesh || request.plan == Plan::doubling) {
    return invalid("the plans mesh and doubling know no codec; leave the plan open, or use direct");
  }
  return Unit{};
}

}  // namespace

bool is_pairwise(OpKind kind) {
  return kind == OpKind::exchange || kind == OpKind::send || kind == OpKind::recv;
}

bool is_reducing(OpKind kind) {
  return kind == OpKind::all_reduce || kind == OpKind::reduce_scatter;
}

Status check_request(const OpRequest& request) {
  const auto kind = static_cast<std::uint8_t>(request.kind);
  if (kind < 1 || kind > kLastOpKind) return invalid("the kind of op is unknown");
  const auto dtype = static_cast<std::uint8_t>(request.dtype);
  if (dtype < 1 || dtype > kLastDType) return invalid("the dtype is unknown");
  const std::size_t width = dtype_bytes(request.dtype);
  if (request.count > limits::kMaxVectorBytes / width ||
      request.in.size() > limits::kMaxVectorBytes || request.out.size() > limits::kMaxVectorBytes) {
    return invalid("the op has too many elements (a vector has at most 2^40 bytes)");
  }
  if (request.counts.size() > limits::kMaxMembers) return invalid("there are too many counts");
  if (!request.counts.empty() && request.kind != OpKind::all_gather) {
    return invalid("only an all-gather has counts");
  }
  if (request.chunk_bytes > limits::kMaxPayload || request.chunk_bytes % width != 0) {
    return invalid("chunk_bytes is no multiple of the element's size up to 4 MiB");
  }
  if (request.channel >= limits::kMaxChannels) return invalid("there are channels 0 to 4095");
  if (Status sizes = check_sizes(request); !sizes.ok()) return sizes;
  if (!aligned(request.out, width)) return invalid("the output is not aligned to its elements");
  if (!aligned(request.in, width)) return invalid("the input is not aligned to its elements");
  const bool overwrites = request.kind == OpKind::all_reduce || request.kind == OpKind::broadcast;
  if (request.overwrite && !overwrites) {
    return invalid("only an all-reduce and a broadcast may overwrite their input");
  }
  const bool same = request.overwrite && in_place(request);
  if (!same && overlap(request.in, request.out)) {
    return invalid("input and output must not overlap (they may be the same)");
  }
  if (is_reducing(request.kind)) return check_reduction(request);
  if (request.codec.id != CodecId::fp32) return invalid("only reductions have a codec");
  if (request.plan != Plan::none) return invalid("only an all-reduce has a choice of plans");
  return Unit{};
}

bool in_place(const OpRequest& request) {
  return !request.out.empty() && request.in.data() == request.out.data() &&
         request.in.size() == request.out.size();
}

void set_input_aside(OpRequest& request) {
  const std::size_t bytes = request.in.size();
  const std::shared_ptr<std::byte[]> copy(new std::byte[bytes]);
  std::memcpy(copy.get(), request.in.data(), bytes);
  request.in = {copy.get(), bytes};
  request.keep = copy;
  request.restore = true;
}

std::uint64_t digest_of(std::span<const std::uint64_t> counts) {
  if (counts.empty()) return 0;
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const std::uint64_t count : counts) {
    for (unsigned shift = 0; shift < 64; shift += 8) {
      hash = (hash ^ (count >> shift & 0xffu)) * 0x100000001b3u;
    }
  }
  return hash;
}

}  // namespace reef
