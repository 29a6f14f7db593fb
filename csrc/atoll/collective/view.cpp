#include "atoll/collective/view.h"

#include <algorithm>

namespace reef {

std::optional<Rank> View::rank_of(const PeerId& peer) const {
  const auto found = std::find(members.begin(), members.end(), peer);
  if (found == members.end()) return std::nullopt;
  return static_cast<Rank>(found - members.begin());
}

}  // namespace reef
