// The grouped all-reduce, for members of whom some share a site with fast links. The vector has as
// many slices as the smallest site has members; in every site one member leads each slice.
//
//   phase 0  every member sends its numbers of a slice to the slice's leader in its own site, who
//            adds them up: the site's sum
//   phase 1  a slice has one part per site; leaders send their site's sum of a part to the leader in
//            the part's own site, who adds the sites' sums up
//   phase 2  and sends the result back to the slice's leaders in the other sites,
//   phase 3  who, like itself, hand it to the members of their site.
//
// Between two sites a number thus travels once each way, whatever the number of members. A codec
// applies there; inside a site numbers travel as they are. Orders of addition: a leader's own
// numbers, then its site's members backwards by their place; its own site's sum, then the sites
// backwards.

#include <utility>
#include <vector>

#include "atoll/collective/plans/fold.h"
#include "atoll/collective/plans/grid.h"
#include "atoll/collective/plans/operand.h"

namespace reef {

namespace {

// Who is where.
class Sites {
 public:
  Sites(const PlanSetup& setup) : site_of_(setup.members), place_of_(setup.members) {
    std::vector<std::uint32_t> names;
    for (Rank rank = 0; rank < setup.members; ++rank) {
      const std::uint32_t name = setup.sites.empty() ? rank : setup.sites[rank];
      Rank site = 0;
      while (site < names.size() && names[site] != name) ++site;
      if (site == names.size()) {
        names.push_back(name);
        members_.emplace_back();
      }
      site_of_[rank] = site;
      place_of_[rank] = static_cast<Rank>(members_[site].size());
      members_[site].push_back(rank);
    }
    slices_ = static_cast<Rank>(members_[0].size());
    for (const std::vector<Rank>& each : members_) {
      slices_ = std::min(slices_, static_cast<Rank>(each.size()));
    }
  }
  [[nodiscard]] Rank count() const { return static_cast<Rank>(members_.size()); }
  [[nodiscard]] Rank slices() const { return slices_; }
  [[nodiscard]] Rank site(Rank rank) const { return site_of_[rank]; }
  [[nodiscard]] Rank place(Rank rank) const { return place_of_[rank]; }
  [[nodiscard]] const std::vector<Rank>& members(Rank site) const { return members_[site]; }
  [[nodiscard]] Rank leader(Rank site, Rank slice) const { return members_[site][slice]; }
  // The slice that this member leads; slices() if none.
  [[nodiscard]] Rank led_by(Rank rank) const { return std::min(place_of_[rank], slices_); }

 private:
  std::vector<std::vector<Rank>> members_;
  std::vector<Rank> site_of_;
  std::vector<Rank> place_of_;
  Rank slices_ = 0;
};

std::uint32_t whole_blocks(std::uint32_t chunk_bytes, CodecId codec) {
  if (codec == CodecId::fp32) return chunk_bytes;
  constexpr std::uint32_t kBlockBytes = kCodecBlock * sizeof(float);
  return std::max(chunk_bytes / kBlockBytes, 1u) * kBlockBytes;
}

PlanSetup without_codec(PlanSetup setup) {
  setup.codec = {};
  return setup;
}

class Grouped final : public PlanRun {
 public:
  explicit Grouped(const PlanSetup& setup)
      : setup_(setup),
        sites_(setup),
        mine_(sites_.site(setup.self)),
        led_(sites_.led_by(setup.self)),
        grid_(bounds(), dtype_bytes(setup.dtype), chunk_bytes()),
        wide_grid_(bounds(), dtype_bytes(setup.dtype), chunk_bytes(), setup.codec.id),
        near_(without_codec(setup)),
        wide_(setup),
        site_sums_(near_, setup.weights, neighbours(), setup.self, leads() ? slots_led() : 0),
        totals_(wide_, nullptr, peers(), setup.self, leads() ? grid_.stride() : 0),
        whole_(grid_.slots(), 0) {
    totals_.hold();
    results_.resize(totals_chunks());
    for (Rank segment = 0; segment < grid_.segments(); ++segment) {
      awaited_ += grid_.chunks(segment);
    }
  }

  void begin(Outbox& outbox) override {
    for (Rank slice = 0; slice < sites_.slices() && !near_.absent(); ++slice) {
      if (slice == led_) continue;
      each_chunk(slice, [&](Rank, std::size_t, const Grid::Range& range) {
        outbox.send(sites_.leader(mine_, slice), 0, range.offset,
                    static_cast<std::uint32_t>(range.length));
      });
    }
    if (!leads()) return;
    each_chunk(led_, [&](Rank segment, std::size_t number, const Grid::Range& range) {
      if (site_sums_.begin(led_slot(segment, number), cell(range))) {
        site_summed(segment, number, outbox);
      }
    });
  }

  Payload payload(Rank to, std::uint16_t phase, std::uint64_t offset) override {
    const Rank slice = phase == 0 ? sites_.led_by(to) : led_;
    const Rank segment = segment_at(slice, offset);
    const std::size_t number = grid_.number_at(segment, offset);
    const std::span<std::byte> sum = cell(grid_.range(segment, number)).sum;
    switch (phase) {
      case 0: return near_.own_payload(offset, sum.size());
      case 1: return wide_.sum_payload(sum, offset, 2);
      case 2: {
        if (!wide_.coded()) return {sum, nullptr};
        Result& result = results_[number];
        return --result.unsent == 0 ? std::move(result.payload) : result.payload;
      }
      default: return {sum, nullptr};
    }
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    const std::optional<At> at = locate(chunk);
    if (!at) return {};
    switch (chunk.phase) {
      case 0: return site_sums_.place(led_slot(at->segment, at->number), chunk.from, chunk.length);
      case 1: return totals_.place(at->number, chunk.from, chunk.length);
      case 2:
        if (wide_.coded()) return {};
        [[fallthrough]];
      default: return setup_.out.subspan(chunk.offset, chunk.length);
    }
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<At> at = locate(chunk);
    if (!at) return false;
    const Fold::Cell target = cell(grid_.range(at->segment, at->number));
    switch (chunk.phase) {
      case 0:
        if (site_sums_.deliver(led_slot(at->segment, at->number), target, chunk.from, payload)) {
          site_summed(at->segment, at->number, outbox);
        }
        return true;
      case 1:
        if (totals_.deliver(at->number, target, chunk.from, payload)) total(at->number, outbox);
        return true;
      case 2:
        wide_.put(target.sum, payload);
        hand_out(at->segment, at->number, outbox);
        return true;
      default:
        settle_in(target.sum, payload);
        finish(at->segment, at->number);
        return true;
    }
  }

  void heard(Rank from, Outbox& outbox) override {
    if (!leads()) return;
    if (setup_.weights->absent(from) && sites_.site(from) == mine_) {
      each_chunk(led_, [&](Rank segment, std::size_t number, const Grid::Range& range) {
        const std::size_t slot = led_slot(segment, number);
        if (!site_sums_.done(slot) && site_sums_.advance(slot, cell(range))) {
          site_summed(segment, number, outbox);
        }
      });
    }
    if (!wide_.needs_all_weights() || !setup_.weights->all_known()) return;
    for (std::size_t number : std::exchange(undivided_, {})) total(number, outbox);
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }
  [[nodiscard]] EncodeReport report() const override { return wide_.report(); }

 private:
  struct At {
    Rank segment = 0;
    std::size_t number = 0;
  };
  struct Result {
    Payload payload;
    Rank unsent = 0;
  };

  // Segments: slice by slice, in each one for each site.
  [[nodiscard]] std::vector<std::uint64_t> bounds() const {
    const std::uint64_t elements = setup_.in.size() / dtype_bytes(setup_.dtype);
    const std::uint64_t granule = granule_of(setup_.codec.id);
    const std::vector<std::uint64_t> slices = equal_parts(elements, sites_.slices(), granule);
    std::vector<double> shares(sites_.count(), 1);
    if (setup_.site_weights.size() == sites_.count()) shares = setup_.site_weights;
    std::vector<std::uint64_t> all;
    for (Rank slice = 0; slice < sites_.slices(); ++slice) {
      const std::uint64_t begin = slices[slice];
      for (std::uint64_t bound : weighted_parts(slices[slice + 1] - begin, shares, granule)) {
        all.push_back(begin + bound);
      }
      all.pop_back();  // the next slice's first
    }
    all.push_back(elements);
    return all;
  }
  [[nodiscard]] std::uint32_t chunk_bytes() const {
    return whole_blocks(setup_.chunk_bytes, setup_.codec.id);
  }
  [[nodiscard]] bool leads() const { return led_ < sites_.slices(); }
  [[nodiscard]] Rank segment_of(Rank slice, Rank site) const {
    return slice * sites_.count() + site;
  }
  [[nodiscard]] Rank own_segment() const { return segment_of(led_, mine_); }
  [[nodiscard]] std::size_t slots_led() const { return grid_.stride() * sites_.count(); }
  [[nodiscard]] std::size_t led_slot(Rank segment, std::size_t number) const {
    return (segment % sites_.count()) * grid_.stride() + number;
  }
  [[nodiscard]] std::size_t totals_chunks() const {
    return leads() && wide_.coded() ? grid_.chunks(own_segment()) : 0;
  }
  [[nodiscard]] std::vector<Rank> neighbours() const {
    const std::vector<Rank>& members = sites_.members(mine_);
    const auto count = static_cast<Rank>(members.size());
    std::vector<Rank> order;
    for (Rank k = 0; k < count; ++k) {
      order.push_back(members[(sites_.place(setup_.self) + count - k) % count]);
    }
    return order;
  }
  [[nodiscard]] std::vector<Rank> peers() const {
    std::vector<Rank> order;
    for (Rank k = 1; k < sites_.count() && leads(); ++k) {
      order.push_back(sites_.leader((mine_ + sites_.count() - k) % sites_.count(), led_));
    }
    return order;
  }
  [[nodiscard]] Fold::Cell cell(const Grid::Range& range) const {
    return {setup_.out.subspan(range.offset, range.length), range.offset};
  }
  template <typename Visit>
  void each_chunk(Rank slice, Visit visit) {
    for (Rank site = 0; site < sites_.count(); ++site) {
      const Rank segment = segment_of(slice, site);
      for (std::size_t number = 0; number < grid_.chunks(segment); ++number) {
        visit(segment, number, grid_.range(segment, number));
      }
    }
  }
  // The segment of this slice in which a chunk begins; the last one if none.
  [[nodiscard]] Rank segment_at(Rank slice, std::uint64_t offset) const {
    Rank segment = segment_of(slice, 0);
    const Rank last = segment_of(slice, sites_.count() - 1);
    while (segment < last && offset >= grid_.end(segment)) ++segment;
    return segment;
  }

  [[nodiscard]] std::optional<At> locate(const ChunkName& chunk) const {
    if (chunk.from == setup_.self || chunk.from >= setup_.members) return std::nullopt;
    const bool near = sites_.site(chunk.from) == mine_;
    const Rank slice = chunk.phase == 3 ? sites_.led_by(chunk.from) : led_;
    const bool fits = chunk.phase == 0   ? near && leads()
                      : chunk.phase == 3 ? near && slice < sites_.slices()
                                         : !near && leads() && chunk.phase < 3 &&
                                               sites_.led_by(chunk.from) == led_;
    if (!fits) return std::nullopt;
    const Rank segment = chunk.phase == 1   ? own_segment()
                         : chunk.phase == 2 ? segment_of(led_, sites_.site(chunk.from))
                                            : segment_at(slice, chunk.offset);
    const bool coded = chunk.phase == 1 || chunk.phase == 2;
    const std::optional<std::size_t> number =
        coded ? wide_grid_.find(segment, chunk) : grid_.find(segment, chunk);
    if (!number) return std::nullopt;
    switch (chunk.phase) {
      case 0:
        if (!site_sums_.expects(led_slot(segment, *number), chunk.from)) return std::nullopt;
        break;
      case 1:
        if (!totals_.expects(*number, chunk.from)) return std::nullopt;
        break;
      case 2:  // a result needs this site's sum
        if (!site_sums_.done(led_slot(segment, *number))) return std::nullopt;
        [[fallthrough]];
      default:
        if (whole_[grid_.slot(segment, *number)] != 0) return std::nullopt;
    }
    return At{segment, *number};
  }

  // The site's sum of a chunk of the led slice is there.
  void site_summed(Rank segment, std::size_t number, Outbox& outbox) {
    const Grid::Range range = grid_.range(segment, number);
    const Rank site = segment % sites_.count();
    if (site != mine_) {
      outbox.send(sites_.leader(site, led_), 1, range.offset,
                  wide_grid_.wire_bytes(range.length));
    } else if (totals_.begin_on(number, cell(range))) {
      total(number, outbox);
    }
  }
  // All sites' sums of a chunk of the own segment are in.
  void total(std::size_t number, Outbox& outbox) {
    if (wide_.needs_all_weights() && !setup_.weights->all_known()) {
      undivided_.push_back(number);
      return;
    }
    const Grid::Range range = grid_.range(own_segment(), number);
    const std::span<std::byte> sum = cell(range).sum;
    wide_.finish(sum, *setup_.weights);
    if (wide_.coded()) results_[number] = {wide_.seal(sum, range.offset), sites_.count() - 1};
    for (Rank k = 1; k < sites_.count(); ++k) {
      outbox.send(sites_.leader((mine_ + k) % sites_.count(), led_), 2, range.offset,
                  wide_grid_.wire_bytes(range.length));
    }
    hand_out(own_segment(), number, outbox);
  }
  void hand_out(Rank segment, std::size_t number, Outbox& outbox) {
    const Grid::Range range = grid_.range(segment, number);
    for (const Rank member : sites_.members(mine_)) {
      if (member == setup_.self) continue;
      outbox.send(member, 3, range.offset, static_cast<std::uint32_t>(range.length));
    }
    finish(segment, number);
  }
  void finish(Rank segment, std::size_t number) {
    whole_[grid_.slot(segment, number)] = 1;
    --awaited_;
  }

  PlanSetup setup_;
  Sites sites_;
  Rank mine_;  // this member's site
  Rank led_;   // the slice it leads
  Grid grid_;
  Grid wide_grid_;
  Operand near_;
  Operand wide_;
  Fold site_sums_;
  Fold totals_;
  std::vector<Result> results_;
  std::vector<std::size_t> undivided_;
  std::vector<std::uint8_t> whole_;
  std::size_t awaited_ = 0;
};

}  // namespace

std::unique_ptr<PlanRun> make_grouped(const PlanSetup& setup) {
  return std::make_unique<Grouped>(setup);
}

}  // namespace reef
