#include "atoll/base/result.h"

#include <cstdio>
#include <cstdlib>

namespace reef {

const char* code_name(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::mismatch: return "mismatch";
    case Code::deadline: return "deadline";
    case Code::aborted: return "aborted";
    case Code::closed: return "closed";
    case Code::peer_lost: return "peer_lost";
    case Code::not_member: return "not_member";
    case Code::invalid: return "invalid";
    case Code::protocol: return "protocol";
    case Code::io: return "io";
    case Code::wrong_revision: return "wrong_revision";
    case Code::view_changed: return "view_changed";
  }
  return "unknown";
}

void check(bool condition, const char* sentence) {
  if (condition) [[likely]] {
    return;
  }
  std::fprintf(stderr, "atoll: %s\n", sentence);
  std::abort();
}

}  // namespace reef
