#include "atoll/collective/planning.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "atoll/base/limits.h"
#include "atoll/topology/connections.h"
#include "atoll/topology/cost_model.h"
#include "atoll/topology/topology.h"

namespace reef {

namespace {

// Of the links measured, if they are those of this view.
const Topology* topology_of(const View& view) {
  return view.topology && view.topology->members == view.size() ? view.topology.get() : nullptr;
}

// Over such links a vector's way through memory takes as long as that through the network. The
// ring's contributions are added as they come; the direct plan keeps those that come before their
// turn, which then have left the cache.
bool is_fast(const Topology& topology) {
  constexpr double kLeastBytesPerS = 5e8;
  constexpr double kMostLatencyS = 1e-3;
  return topology.derived.slowest_bytes_per_s >= kLeastBytesPerS &&
         topology.derived.latency_s <= kMostLatencyS;
}

Plan plan_by_size(std::uint64_t bytes, Rank members, bool coded, std::uint64_t direct_max_bytes,
                  const CoreOptions& options) {
  if (!coded && members <= options.mesh_max_members && bytes <= options.mesh_max_bytes) {
    return Plan::mesh;
  }
  if (!coded && members > options.mesh_max_members && bytes <= options.doubling_max_bytes) {
    return Plan::doubling;
  }
  return coded || bytes <= direct_max_bytes ? Plan::direct : Plan::ring;
}

std::uint32_t chunk_of(std::uint64_t bytes, Rank members, bool coded) {
  const std::uint64_t half = std::bit_ceil(std::max<std::uint64_t>(bytes / members / 2, 1));
  const std::uint32_t most = coded ? limits::kMostCodedChunkBytes : limits::kMostChunkBytes;
  return static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(half, limits::kLeastChunkBytes, most));
}

// Bytes of the vector for each byte that travels.
double shrinks(CodecId codec) {
  constexpr std::size_t kMany = 1u << 16;
  return codec == CodecId::fp32 ? 1.0
                                : static_cast<double>(kMany * sizeof(float)) /
                                      static_cast<double>(encoded_bytes(codec, kMany));
}

// A chunk goes over one of many connections that share a member's line, and whoever waits for it waits
// as long as that one takes. It should take no longer than the way itself: what the slowest line
// carries in that time, divided by the connections.
std::uint32_t chunk_over(const Topology& topology, std::uint32_t chunk_bytes, double of_wire) {
  const double latency_s = topology.derived.latency_s;
  if (2 * latency_s < kLongRoundTripS || topology.members < 2) return chunk_bytes;
  double line = topology.egress_bytes_per_s[0];
  for (Rank member = 0; member < topology.members; ++member) {
    line = std::min({line, topology.egress_bytes_per_s[member],
                     topology.ingress_bytes_per_s[member]});
  }
  const double connections = connections_from_round_trip(2 * latency_s);
  const double wanted =
      of_wire * line * latency_s / (connections * static_cast<double>(topology.members - 1));
  std::uint32_t chunk = kLeastLongChunkBytes;
  while (chunk < chunk_bytes && 2.0 * chunk <= wanted) chunk *= 2;
  return std::min(chunk, chunk_bytes);
}

Plan measured_plan(const OpRequest& request, const Topology& topology, std::uint32_t chunk_bytes,
                   const CoreOptions& options) {
  const auto travelling = [&](std::uint64_t bytes) -> std::uint64_t {
    return request.codec.id == CodecId::fp32
               ? bytes
               : encoded_bytes(request.codec.id, static_cast<std::size_t>(bytes / sizeof(float)));
  };
  const std::uint64_t bytes = request.count * dtype_bytes(request.dtype);
  PlanRequest question =
      PlanRequest::of(topology.members, travelling(bytes), travelling(chunk_bytes));
  question.allowed[static_cast<std::size_t>(PlanKind::doubling)] =
      request.codec.id == CodecId::fp32;
  question.allowed[static_cast<std::size_t>(PlanKind::mesh)] =
      request.codec.id == CodecId::fp32 && topology.members <= options.mesh_max_members;
  switch (choose(&topology, question, PlanDefaults{}).plan) {
    case PlanKind::ring: return Plan::ring;
    case PlanKind::doubling: return Plan::doubling;
    case PlanKind::grouped: return Plan::grouped;
    case PlanKind::mesh: return Plan::mesh;
    case PlanKind::direct: break;
  }
  return Plan::direct;
}

std::vector<std::uint64_t> parts(const OpRequest& request, Rank members) {
  return equal_parts(request.count, members, granule_of(request.codec.id));
}

std::vector<double> as_doubles(const std::vector<std::uint32_t>& weights) {
  return {weights.begin(), weights.end()};
}

}  // namespace

Choice choose(const OpRequest& request, const View& view, const CoreOptions& options) {
  Choice choice;
  // Of a gathering of different sizes all members know the sum alike.
  const std::uint64_t count =
      std::accumulate(request.counts.begin(), request.counts.end(),
                      request.counts.empty() ? request.count : std::uint64_t{0});
  const std::uint64_t bytes = count * dtype_bytes(request.dtype);
  const bool coded = request.codec.id != CodecId::fp32;
  choice.chunk_bytes = request.chunk_bytes != 0 ? request.chunk_bytes : options.chunk_bytes;
  const Topology* topology = topology_of(view);
  if (choice.chunk_bytes == 0) {
    choice.chunk_bytes = chunk_of(bytes, view.size(), coded);
    if (topology != nullptr) {
      choice.chunk_bytes = chunk_over(*topology, choice.chunk_bytes, shrinks(request.codec.id));
    }
  }
  // No chunk cuts a number.
  const auto width = static_cast<std::uint32_t>(dtype_bytes(request.dtype));
  choice.chunk_bytes = std::max(choice.chunk_bytes / width, 1u) * width;
  if (request.plan != Plan::none) {
    choice.plan = request.plan;
  } else if (topology == nullptr || bytes == 0) {
    choice.plan = plan_by_size(bytes, view.size(), coded, options.direct_max_bytes, options);
  } else if (is_fast(*topology)) {
    const std::uint64_t most = options.direct_max_part_bytes * view.size();
    choice.plan = plan_by_size(bytes, view.size(), coded, most, options);
  } else {
    choice.plan = measured_plan(request, *topology, choice.chunk_bytes, options);
  }
  return choice;
}

bool works_in_place(const OpDescription& description) {
  if (description.kind == OpKind::broadcast) return true;
  return description.plan == Plan::ring || description.plan == Plan::direct;
}

bool fits(const OpRequest& request, Rank self, Rank members) {
  const std::uint64_t width = dtype_bytes(request.dtype);
  switch (request.kind) {
    case OpKind::reduce_scatter: {
      const std::vector<std::uint64_t> bounds = parts(request, members);
      return request.out.size() == (bounds[self + 1] - bounds[self]) * width;
    }
    case OpKind::all_gather: {
      if (request.counts.empty()) return request.out.size() == members * request.count * width;
      if (request.counts.size() != members) return false;
      std::uint64_t total = 0;
      for (const std::uint64_t count : request.counts) {
        if (count > request.out.size() / width - total) return false;
        total += count;
      }
      return request.in.size() == request.counts[self] * width &&
             request.out.size() == total * width;
    }
    case OpKind::all_to_all: return request.in.size() == members * request.count * width;
    default: return true;
  }
}

std::unique_ptr<PlanRun> make_plan(const OpRequest& request, const OpDescription& description,
                                   Rank self, const View& view, const Weights& weights) {
  PlanSetup setup;
  setup.self = self;
  setup.members = view.size();
  setup.in = request.in;
  setup.out = request.out;
  setup.chunk_bytes = description.chunk_bytes;
  setup.dtype = description.dtype;
  setup.reduction = description.reduction;
  setup.codec = request.codec;
  setup.weights = is_pairwise(request.kind) ? nullptr : &weights;
  if (is_pairwise(request.kind)) {
    setup.other = view.rank_of(request.partner).value_or(0);
  } else {
    setup.other = description.root;
  }
  setup.order.resize(view.size());
  std::iota(setup.order.begin(), setup.order.end(), Rank{0});
  const Topology* topology = topology_of(view);
  if (topology != nullptr) setup.order = topology->derived.ring;
  switch (request.kind) {
    case OpKind::all_reduce:
      setup.bounds = parts(request, view.size());
      if (topology != nullptr) {
        setup.sites = topology->derived.site;
        setup.site_weights = as_doubles(topology->derived.site_weights);
        setup.bounds = weighted_parts(request.count, as_doubles(topology->derived.part_weights),
                                      granule_of(request.codec.id));
      }
      switch (description.plan) {
        case Plan::ring: return make_ring(setup);
        case Plan::doubling: return make_doubling(setup);
        case Plan::mesh: return make_mesh(setup);
        case Plan::grouped: return make_grouped(setup);
        default: return make_direct(setup);
      }
    case OpKind::reduce_scatter:
      setup.bounds = parts(request, view.size());
      return make_reduce_scatter(setup);
    case OpKind::all_gather:
      setup.counts = request.counts;
      if (setup.counts.empty()) setup.counts.assign(view.size(), request.count);
      return make_all_gather(setup);
    case OpKind::all_to_all: return make_all_to_all(setup);
    case OpKind::broadcast: return make_broadcast(setup);
    case OpKind::exchange: return make_swap(setup);
    case OpKind::send: return make_send(setup);
    case OpKind::recv: return make_recv(setup);
    case OpKind::barrier: break;
  }
  return nullptr;
}

}  // namespace reef
