#include "atoll/topology/cost_model.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "atoll/topology/part_weights.h"
#include "atoll/topology/ring_order.h"

namespace reef {

namespace {

constexpr double kImpossible = std::numeric_limits<double>::infinity();
// Of predictions that are nearly equal, the first of these: the direct plan rounds least and waits
// for fewest.
constexpr double kClearly = 0.95;
constexpr PlanKind kPreference[kPlanKinds] = {PlanKind::direct, PlanKind::ring, PlanKind::doubling,
                                              PlanKind::grouped, PlanKind::mesh};

std::size_t index(PlanKind plan) {
  return static_cast<std::size_t>(plan);
}

double slower_line(const Topology& topology, Rank member) {
  return std::min(topology.egress_bytes_per_s[member], topology.ingress_bytes_per_s[member]);
}

// Seconds for each byte of the vector in the direct plan: of the busiest line, link or border.
double direct_s_per_byte(const Topology& topology) {
  const double n = topology.members;
  std::vector<double> part;
  for (const std::uint32_t weight : topology.derived.part_weights) {
    part.push_back(static_cast<double>(weight) / kPartScale);
  }
  double slowest = 0;
  std::vector<double> of_site(topology.derived.sites, 0);
  for (Rank a = 0; a < topology.members; ++a) {
    slowest = std::max(slowest, (1 + (n - 2) * part[a]) / slower_line(topology, a));
    for (Rank b = a + 1; b < topology.members; ++b) {
      slowest = std::max(slowest, (part[a] + part[b]) / topology.both_ways(a, b));
    }
    of_site[topology.derived.site[a]] += part[a];
  }
  const std::vector<Border> borders = site_borders(topology);
  for (std::size_t site = 0; site < borders.size(); ++site) {
    const double inside = borders[site].members;
    // Contributions of all inside to the owners outside, results of the owners inside to all
    // outside; and the same amount the other way.
    const double crossing = inside * (1 - of_site[site]) + (n - inside) * of_site[site];
    slowest = std::max(slowest, crossing / topology.derived.border_bytes_per_s[site]);
  }
  return slowest;
}

// The vector has as many slices as the smallest site has members; the members of each site with the
// lowest ranks lead one each. Inside a site numbers go to the slice's leader and come back from it;
// between sites a slice's leaders exchange their sums as in the direct plan.
double grouped_s_per_byte(const Topology& topology) {
  const Derived& derived = topology.derived;
  const double sites = derived.sites;
  const std::vector<Border> borders = site_borders(topology);
  Rank slices = topology.members;
  for (const Border& border : borders) slices = std::min(slices, border.members);
  double slowest = 0;
  std::vector<double> owned;     // by site, of each slice
  std::vector<double> crossing;  // of the whole vector, over a site's border, each way
  for (std::size_t site = 0; site < borders.size(); ++site) {
    owned.push_back(static_cast<double>(derived.site_weights[site]) / kPartScale);
    crossing.push_back((1 - owned[site]) + (sites - 1) * owned[site]);
    slowest = std::max(slowest, crossing[site] / derived.border_bytes_per_s[site]);
  }
  std::vector<Rank> place;  // in its site
  std::vector<Rank> so_far(borders.size(), 0);
  for (const std::uint32_t site : derived.site) place.push_back(so_far[site]++);
  const double of_slice = 1.0 / slices;
  for (Rank a = 0; a < topology.members; ++a) {
    const std::uint32_t site = derived.site[a];
    const double led = (slices - 1.0) + (borders[site].members - 1.0) + crossing[site];
    const double bytes = place[a] < slices ? led * of_slice : 1;
    slowest = std::max(slowest, bytes / slower_line(topology, a));
    for (Rank b = a + 1; b < topology.members; ++b) {
      double between = 0;
      if (derived.site[b] != site) {
        if (place[a] == place[b] && place[a] < slices)
          between = owned[site] + owned[derived.site[b]];
      } else {
        between = (place[a] < slices ? 1 : 0) + (place[b] < slices ? 1 : 0);
      }
      slowest = std::max(slowest, between * of_slice / topology.both_ways(a, b));
    }
  }
  return slowest;
}

// Everybody sends everything to everybody.
double mesh_s_per_byte(const Topology& topology) {
  const double n = topology.members;
  double slowest = 0;
  for (Rank a = 0; a < topology.members; ++a) {
    slowest = std::max(slowest, (n - 1) / slower_line(topology, a));
    for (Rank b = a + 1; b < topology.members; ++b) {
      slowest = std::max(slowest, 1 / topology.both_ways(a, b));
    }
  }
  const std::vector<Border> borders = site_borders(topology);
  for (std::size_t site = 0; site < borders.size(); ++site) {
    const double inside = borders[site].members;
    slowest = std::max(slowest, inside * (n - inside) / topology.derived.border_bytes_per_s[site]);
  }
  return slowest;
}

// The ring's slowest link, or a border that several of its links cross at once.
RingFigures bounded_by_borders(const Topology& topology) {
  const Derived& derived = topology.derived;
  RingFigures figures = ring_figures(topology, derived.ring);
  std::vector<double> out(derived.sites, 0);
  std::vector<double> in(derived.sites, 0);
  for (std::size_t i = 0; i < derived.ring.size(); ++i) {
    const std::uint32_t from = derived.site[derived.ring[i]];
    const std::uint32_t to = derived.site[derived.ring[(i + 1) % derived.ring.size()]];
    if (from == to) continue;
    out[from] += 1;
    in[to] += 1;
  }
  const std::vector<Border> borders = site_borders(topology);
  for (std::size_t site = 0; site < borders.size(); ++site) {
    if (out[site] == 0) continue;
    figures.slowest_bytes_per_s =
        std::min({figures.slowest_bytes_per_s, borders[site].out_bytes_per_s / out[site],
                  borders[site].in_bytes_per_s / in[site]});
  }
  return figures;
}

// A plan in which each byte waits for `steps` links one after the other.
double in_steps(double bytes, double s_per_byte, double latency_s, double steps,
                double chunk_s) {
  return bytes * s_per_byte + latency_s + steps * chunk_s;
}

// Contributions go to their owners while results of earlier chunks already come back: a line is never idle
// but for the ways there and back of the first and the last chunk, or, where these are longer than a
// line needs for the contributions, for the rest of the way.
double direct_seconds(double bytes, double s_per_byte, double latency_s, double chunk_s) {
  const double half_s = bytes * s_per_byte / 2;
  const double way_s = latency_s + chunk_s;
  return half_s + way_s + std::max(half_s, way_s);
}

// Pairs that exchange whole vectors at the same time.
class Step {
 public:
  Step(const Topology& topology, double bytes)
      : topology_(topology), bytes_(bytes), crossing_(topology.derived.sites, 0) {}

  void exchange(Rank a, Rank b) {
    const double latency = std::max(topology_.latency(a, b), topology_.latency(b, a));
    slowest_ = std::max(slowest_, latency + bytes_ / topology_.both_ways(a, b));
    const std::vector<std::uint32_t>& site = topology_.derived.site;
    if (site[a] == site[b]) return;
    crossing_[site[a]] += 1;
    crossing_[site[b]] += 1;
    latency_ = std::max(latency_, latency);
  }
  [[nodiscard]] double seconds() const {
    double seconds = slowest_;
    for (std::size_t site = 0; site < crossing_.size(); ++site) {
      if (crossing_[site] == 0) continue;
      seconds = std::max(seconds, latency_ + crossing_[site] * bytes_ /
                                                 topology_.derived.border_bytes_per_s[site]);
    }
    return seconds;
  }

 private:
  const Topology& topology_;
  double bytes_;
  double slowest_ = 0;
  double latency_ = 0;  // of the slowest link between sites
  std::vector<double> crossing_;
};

// The largest power of two of the members exchange whole vectors with those at distance 1, 2, 4,
// ...; each of the other members first gives its vector to one of these, and gets the result back.
double doubling_seconds(const Topology& topology, double bytes) {
  Rank core = 1;
  while (core * 2 <= topology.members) core *= 2;
  double seconds = 0;
  for (Rank distance = 1; distance < core; distance *= 2) {
    Step step(topology, bytes);
    for (Rank a = 0; a < core; ++a) {
      if (a < (a ^ distance)) step.exchange(a, a ^ distance);
    }
    seconds += step.seconds();
  }
  Step fold(topology, bytes);
  for (Rank a = core; a < topology.members; ++a) fold.exchange(a, a - core);
  return seconds + 2 * fold.seconds();
}

double predict(const Topology& topology, PlanKind plan, const PlanRequest& request) {
  const Derived& derived = topology.derived;
  const auto bytes = static_cast<double>(request.wire_bytes[index(plan)]);
  const auto chunk = static_cast<double>(request.chunk_bytes);
  const double chunk_s = std::min(chunk, bytes / topology.members) / derived.slowest_bytes_per_s;
  switch (plan) {
    case PlanKind::ring:
      return ring_seconds(derived.ring_figures, topology.members, RingLoad{bytes, chunk});
    case PlanKind::direct:
      return direct_seconds(bytes, derived.direct_s_per_byte, derived.latency_s, chunk_s);
    case PlanKind::doubling:
      return doubling_seconds(topology, bytes);
    case PlanKind::mesh:
      return bytes * derived.mesh_s_per_byte + derived.latency_s;
    case PlanKind::grouped:
      if (derived.sites < 2 || derived.sites == topology.members) return kImpossible;
      return in_steps(bytes, derived.grouped_s_per_byte,
                      2 * derived.latency_s + 2 * derived.inner_latency_s, 4, chunk_s);
  }
  return kImpossible;
}

PlanChoice choose_unmeasured(const PlanRequest& request, const PlanDefaults& defaults) {
  PlanChoice choice;
  const std::size_t small = index(PlanKind::doubling);
  if (request.allowed[small] && request.wire_bytes[small] <= defaults.small_max_bytes) {
    choice.plan = PlanKind::doubling;
    return choice;
  }
  for (const PlanKind plan : kPreference) {
    if (!request.allowed[index(plan)]) continue;
    choice.plan = plan;
    return choice;
  }
  check(false, "choose: no plan is allowed");
  return choice;
}

}  // namespace

PlanRequest PlanRequest::of(Rank members, std::uint64_t wire_bytes, std::uint64_t chunk_bytes) {
  PlanRequest request;
  request.members = members;
  request.wire_bytes.fill(wire_bytes);
  request.allowed.fill(true);
  request.chunk_bytes = chunk_bytes;
  return request;
}

PlanChoice choose(const Topology* topology, const PlanRequest& request,
                  const PlanDefaults& defaults) {
  if (topology == nullptr || topology->members != request.members) {
    return choose_unmeasured(request, defaults);
  }
  PlanChoice choice;
  bool found = false;
  for (const PlanKind plan : kPreference) {
    double& seconds = choice.seconds[index(plan)];
    seconds = request.allowed[index(plan)] ? predict(*topology, plan, request) : kImpossible;
    if (seconds < kImpossible &&
        (!found || seconds < kClearly * choice.seconds[index(choice.plan)])) {
      choice.plan = plan;
      found = true;
    }
  }
  // Only the grouped plan is allowed, and there are no sites.
  return found ? choice : choose_unmeasured(request, defaults);
}

double unmeasured_seconds(PlanKind plan, const Bounds& bounds, const PlanRequest& request) {
  const double n = request.members;
  const double rate = bounds.ring.slowest_bytes_per_s;
  const auto bytes = static_cast<double>(request.wire_bytes[index(plan)]);
  const auto chunk = static_cast<double>(request.chunk_bytes);
  switch (plan) {
    case PlanKind::ring:
      return ring_seconds(bounds.ring, request.members, RingLoad{bytes, chunk});
    case PlanKind::direct:
      return direct_seconds(bytes, (1 + (n - 2) / n) / rate, bounds.latency_s,
                            std::min(chunk, bytes / n) / rate);
    case PlanKind::doubling: {
      Rank core = 1;
      double exchanges = 0;
      while (core * 2 <= request.members) {
        core *= 2;
        exchanges += 1;
      }
      if (core < request.members) exchanges += 2;
      return exchanges * (bounds.latency_s + bytes / rate);
    }
    case PlanKind::mesh:
      return bytes * (n - 1) / rate + bounds.latency_s;
    case PlanKind::grouped:
      break;
  }
  return kImpossible;
}

void derive_costs(Topology& topology) {
  Derived& derived = topology.derived;
  derived.border_bytes_per_s.clear();
  for (const Border& border : site_borders(topology)) {
    derived.border_bytes_per_s.push_back(std::min(border.out_bytes_per_s, border.in_bytes_per_s));
  }
  derived.ring_figures = bounded_by_borders(topology);
  derived.direct_s_per_byte = direct_s_per_byte(topology);
  derived.grouped_s_per_byte = grouped_s_per_byte(topology);
  derived.mesh_s_per_byte = mesh_s_per_byte(topology);
  derived.latency_s = 0;
  derived.inner_latency_s = 0;
  derived.slowest_bytes_per_s = std::numeric_limits<double>::infinity();
  for (Rank from = 0; from < topology.members; ++from) {
    for (Rank to = 0; to < topology.members; ++to) {
      if (from == to) continue;
      const double latency = topology.latency(from, to);
      derived.latency_s = std::max(derived.latency_s, latency);
      if (derived.site[from] == derived.site[to]) {
        derived.inner_latency_s = std::max(derived.inner_latency_s, latency);
      }
      derived.slowest_bytes_per_s =
          std::min(derived.slowest_bytes_per_s, topology.link(from, to).bytes_per_s);
    }
  }
}

}  // namespace reef
