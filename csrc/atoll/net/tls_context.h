// This peer's identity in TLS, and whom it believes: made once, then read by every handshake.
//
// TLS 1.3 only, and both sides show a certificate. A certificate is good when it chains up to one of
// the authorities, is within its dates, and allows what it is used for (no extended key usage, or
// both serverAuth and clientAuth). Whether the name in it is the one that the peer must have is for the
// handshake to ask (Stream::holder): names are known by peer, not by connection.
// Any thread creates it; the reactor thread uses it.
#pragma once

#include <memory>
#include <string>

#include "atoll/base/result.h"
#include "atoll/net/fd.h"
#include "atoll/net/stream.h"

struct ssl_ctx_st;  // OpenSSL's SSL_CTX

namespace reef {

// PEM text. All empty: no TLS. Otherwise all three are needed.
struct TlsOptions {
  std::string certificate;  // this peer's own, followed by intermediate ones if there are any
  std::string key;          // its private key, not encrypted
  std::string authorities;  // one or more; certificates of others must chain up to one of them

  [[nodiscard]] bool wanted() const {
    return !certificate.empty() || !key.empty() || !authorities.empty();
  }
};

class TlsContext {
 public:
  // Error: invalid, with what is wrong with which of the three.
  static Result<std::unique_ptr<TlsContext>> create(const TlsOptions& options);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  [[nodiscard]] ssl_ctx_st* get() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

enum class Side : std::uint8_t { dialling, accepting };

// The name in a certificate, for messages.
[[nodiscard]] std::string quoted_holder(const std::string& holder);

// A stream over this socket: plain when `tls` is null. A TLS stream keeps no reference to `tls`.
Result<std::unique_ptr<Stream>> make_stream(const TlsContext* tls, Fd socket, Side side);

}  // namespace reef
